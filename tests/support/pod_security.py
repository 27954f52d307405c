"""The pod security standard `restricted` as a function: what a namespace that enforces it would refuse in a pod's spec.

Follows https://kubernetes.io/docs/concepts/security/pod-security-standards/, baseline included.
"""

from typing import Any

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(spec: dict[str, Any]) -> list[str]:
    """Empty for a pod that `restricted` admits."""
    pod = spec.get("securityContext") or {}
    found = [f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    found += [
        f"volume {volume['name']} is a {kind}"
        for volume in spec.get("volumes") or []
        for kind in volume.keys() - {"name"} - _VOLUMES
    ]
    found += [f"sysctl {sysctl['name']}" for sysctl in pod.get("sysctls") or []]
    for field in ("seLinuxOptions", "windowsOptions", "appArmorProfile"):
        if field in pod:
            found.append(f"{field} is set on the pod: judge it by hand")
    for container in [*spec.get("initContainers", []), *spec["containers"], *spec.get("ephemeralContainers", [])]:
        found += [f"container {container['name']}: {violation}" for violation in _of_container(container, pod)]
    return found


def _of_container(container: dict[str, Any], pod: dict[str, Any]) -> list[str]:
    own = container.get("securityContext") or {}
    both = {**pod, **own}  # a container's own context overrides the pod's
    added = set((own.get("capabilities") or {}).get("add") or [])
    wrong = {
        "privileged": bool(own.get("privileged")),
        "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is not False,
        "runAsNonRoot is not true": both.get("runAsNonRoot") is not True,
        "runs as user 0": both.get("runAsUser") == 0,
        "seccompProfile": (both.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"),
        "capabilities are not dropped": "ALL" not in ((own.get("capabilities") or {}).get("drop") or []),
        "capabilities are added": bool(added - {"NET_BIND_SERVICE"}),
        "procMount": own.get("procMount", "Default") != "Default",
        "a host port": any(port.get("hostPort") for port in container.get("ports") or []),
    }
    return [text for text, is_wrong in wrong.items() if is_wrong]
