{{/* What all names start with: "session-pools" for a release of that name, else "<release>-session-pools". */}}
{{- define "session-pools.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "session-pools.controller" -}}
{{- printf "%s-controller" (include "session-pools.fullname" .) -}}
{{- end -}}

{{- define "session-pools.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "session-pools.controller" .) -}}
{{- else -}}
{{- required "serviceAccount.name must be set when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What selectors use: never changed, a Deployment's selector is immutable. */}}
{{- define "session-pools.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end -}}

{{- define "session-pools.gateway" -}}
{{- printf "%s-gateway" (include "session-pools.fullname" .) -}}
{{- end -}}

{{- define "session-pools.gatewayServiceAccountName" -}}
{{- with .Values.gateway.serviceAccount -}}
{{- if .create -}}
{{- .name | default (include "session-pools.gateway" $) -}}
{{- else -}}
{{- required "gateway.serviceAccount.name must be set when gateway.serviceAccount.create is false" .name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* All gateway pods of the release; the Service selects one of them by sessionpools.dev/gateway: active as well. */}}
{{- define "session-pools.gatewaySelectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{/* The same as a label selector in one line. */}}
{{- define "session-pools.gatewaySelector" -}}
app.kubernetes.io/name={{ .Chart.Name }},app.kubernetes.io/instance={{ .Release.Name }},app.kubernetes.io/component=gateway
{{- end -}}

{{- define "session-pools.web" -}}
{{- printf "%s-web" (include "session-pools.fullname" .) -}}
{{- end -}}

{{- define "session-pools.webServiceAccountName" -}}
{{- with .Values.web.serviceAccount -}}
{{- if .create -}}
{{- .name | default (include "session-pools.web" $) -}}
{{- else -}}
{{- required "web.serviceAccount.name must be set when web.serviceAccount.create is false" .name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "session-pools.webSelectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: web
{{- end -}}

{{/* Nothing; fails for the values of a release that was made by a chart without a web API. */}}
{{- define "session-pools.checkValues" -}}
{{- if not (and .Values.web .Values.auth) -}}
{{- fail "the values lack web and auth, as an older chart's do: upgrade with --reset-then-reuse-values in place of --reuse-values" -}}
{{- end -}}
{{- end -}}

{{/* "true" if there is a web API, else nothing: callers reach it by the gateway, and by nothing else. */}}
{{- define "session-pools.hasWeb" -}}
{{- include "session-pools.checkValues" . -}}
{{- if and .Values.web.enabled .Values.gateway.enabled -}}true{{- end -}}
{{- end -}}

{{/* "true" if callers need a token, else nothing. */}}
{{- define "session-pools.hasAuth" -}}
{{- include "session-pools.checkValues" . -}}
{{- if and .Values.gateway.enabled .Values.auth.enabled -}}
{{- if not .Values.web.enabled -}}
{{- fail "auth.enabled needs web.enabled: tokens come from the web API. Without it set auth.enabled to false as well: callers then need none" -}}
{{- end -}}
true
{{- end -}}
{{- end -}}

{{/* How callers speak to the gateway. */}}
{{- define "session-pools.gatewayScheme" -}}
{{- if .Values.gateway.tls.secretName }}https{{ else }}http{{ end -}}
{{- end -}}

{{/* "true" if several pods can use the store at a time, else nothing. */}}
{{- define "session-pools.storeIsShared" -}}
{{- with .Values.web.store -}}
{{- if or .url (and .persistence.enabled (has "ReadWriteMany" .persistence.accessModes)) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Names of what the web API has in the release's namespace. */}}
{{- define "session-pools.adminSecret" -}}
{{- .Values.auth.admin.existingSecret | default (printf "%s-admin" (include "session-pools.fullname" .)) -}}
{{- end -}}

{{- define "session-pools.usersSecret" -}}
{{- .Values.auth.users.existingSecret | default (printf "%s-users" (include "session-pools.fullname" .)) -}}
{{- end -}}

{{- define "session-pools.keysSecret" -}}
{{- printf "%s-keys" (include "session-pools.fullname" .) -}}
{{- end -}}

{{- define "session-pools.publicKeys" -}}
{{- printf "%s-keys-public" (include "session-pools.fullname" .) -}}
{{- end -}}

{{/* The namespace that ML Server's own paths, /api/NAME/VERSION, mean. */}}
{{- define "session-pools.apiNamespace" -}}
{{- $watched := .Values.watch.namespaces -}}
{{- $namespace := .Values.api.namespace | default (first $watched) | default .Release.Namespace -}}
{{- if and $watched (not (has $namespace $watched)) -}}
{{- fail (printf "api.namespace is %s, which is not one of watch.namespaces (%s): no web service would be found there" $namespace (join ", " $watched)) -}}
{{- end -}}
{{- $namespace -}}
{{- end -}}

{{/* Nothing; fails for namespaces of which no controller could be made. */}}
{{- define "session-pools.checkWatch" -}}
{{- if and .Values.watch.namespaces .Values.watch.ignoreNamespaces -}}
{{- fail "watch.ignoreNamespaces is for all namespaces: watch.namespaces is set, too" -}}
{{- end -}}
{{- if not (or .Values.rbac.clusterScoped .Values.watch.namespaces) -}}
{{- fail "rbac.clusterScoped is false: name the namespaces to serve in watch.namespaces, as a Role is valid in one only" -}}
{{- end -}}
{{- end -}}

{{- define "session-pools.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: session-pools
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* Of a pod spec, for pods of which one works and the others stand by. Call with the labels that select them. */}}
{{- define "session-pools.spread" -}}
topologySpreadConstraints:
  # Never two on one node while another could take one: who is lost with it would be lost with its standby. Nodes
  # that are cordoned or lost do not count, so that a standby is there while they are away.
  {{- range $key, $else := dict "kubernetes.io/hostname" "DoNotSchedule" "topology.kubernetes.io/zone" "ScheduleAnyway" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: {{ $else }}
    nodeTaintsPolicy: Honor
    labelSelector:
      matchLabels:
        {{- $ | nindent 8 }}
    # Of a rollout only the new pods count, else they would crowd where the old ones were not.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end -}}

{{/* Tolerations by which a pod is replaced 30 s after its node was lost, in place of 300 s. */}}
{{- define "session-pools.replacedSoon" -}}
{{- range list "node.kubernetes.io/not-ready" "node.kubernetes.io/unreachable" }}
- key: {{ . }}
  operator: Exists
  effect: NoExecute
  tolerationSeconds: 30
{{- end }}
{{- end -}}

{{/* An image's reference. Call with (list <image values> <registry that holds for all images>). */}}
{{- define "session-pools.image" -}}
{{- $image := index . 0 -}}
{{- with $image.registry | default (index . 1) -}}{{- trimSuffix "/" . -}}/{{- end -}}
{{- $image.repository -}}
{{- with $image.tag -}}:{{- . -}}{{- end -}}
{{- with $image.digest -}}@{{- . -}}{{- end -}}
{{- end -}}
