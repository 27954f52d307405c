-- HAProxy queues a call only for a backend that has a server: with none it answers at once. Here a call for a pool
-- without an open slot is held: first come first served, not more than the pool's queue.maxLength, not longer than its
-- queue.timeoutSeconds. When slots open, held calls go on to HAProxy's queue in order, a few ahead for each slot, so
-- that their time limit counts here until shortly before their turn. `show held` on the admin socket tells how many
-- there are: "<backend> <count>" lines.
--
-- HAProxy 2.8 watches a held call's client now and then only: a call whose client has gone may keep its place until its
-- time is up. It reaches no session: its client is looked at before it is sent to one.
-- Slots do not open any more in a process that was replaced by a reload: its calls move to the new one.
--
-- Reads txn.backend, txn.queue_max, txn.queue_seconds. Sets txn.held_ms, and txn.reason for a call that is not to go
-- on: "queue-full", "no-session", "client-gone" or "moved". proc.held is the number of all held calls: above 0 every
-- call comes through here, so that none overtakes.

local POLL_MS = 3
local AHEAD = 8 -- calls in HAProxy's queue for each open slot: what it serves until the next poll or soon after
local SWEEP_MS = 100

-- backend -> {count = n, calls = {call, ...}}; a call is {queue, since_ms, until_ms}. The references in `calls` are
-- weak: a call whose client has gone ends without a word, and with it the only other reference, in its coroutine.
local waiting = {}
local total = 0
local replaced = false -- this process ends
local bell = core.queue() -- rung for the first held call; without one the task sleeps

local function now_ms()
  local now = core.now()
  return now.sec * 1000 + now.usec // 1000
end

local function open_slots(backend)
  local proxy = core.backends[backend]
  return proxy and proxy:get_srv_act() or 0
end

local function hold(txn)
  local backend = txn:get_var("txn.backend")
  local most = tonumber(txn:get_var("txn.queue_max"))
  local list = waiting[backend]
  if not list then
    if open_slots(backend) > 0 then
      txn:set_var("proc.held", total)
      return
    end
    if most == 0 then
      txn:set_var("txn.reason", "no-session")
      return
    end
    list = { count = 0, calls = setmetatable({}, { __mode = "v" }) }
    waiting[backend] = list
  elseif list.count >= most then
    txn:set_var("txn.reason", "queue-full")
    return
  end
  local since = now_ms()
  local call = { core.queue(), since, since + tonumber(txn:get_var("txn.queue_seconds")) * 1000 }
  if not next(waiting, next(waiting)) and list.count == 0 then
    bell:push(true)
  end
  list.count = list.count + 1
  list.calls[list.count] = call
  total = total + 1
  txn:set_var("proc.held", total)
  txn:set_var("txn.reason", "client-gone") -- HAProxy ends this function here when that happens
  local outcome = call[1]:pop_wait()
  txn:set_var("proc.held", total)
  txn:set_var("txn.held_ms", now_ms() - call[2])
  if outcome == "go" then
    txn:unset_var("txn.reason")
  else
    txn:set_var("txn.reason", outcome)
  end
end

-- Let go on what may, send away what has waited long enough, forget what is gone; keep the rest in order.
local function serve(backend, list, now)
  local room = open_slots(backend) * AHEAD
  if room > 0 then
    room = room - core.backends[backend]:get_stats()["qcur"]
  end
  local kept = 0
  for index = 1, list.count do
    local call = list.calls[index]
    list.calls[index] = nil
    if call then
      if replaced then
        call[1]:push("moved")
      elseif call[3] <= now then
        call[1]:push("no-session")
      elseif room > 0 then
        room = room - 1
        call[1]:push("go")
      else
        kept = kept + 1
        list.calls[kept] = call
      end
    end
  end
  list.count = kept
  return kept
end

core.register_action("hold", { "http-req" }, hold, 0)

core.register_task(function()
  local swept = 0
  while true do
    if not next(waiting) then
      bell:pop_wait()
    else
      local now = now_ms()
      if now - swept >= SWEEP_MS then
        swept = now
        collectgarbage()
        replaced = tonumber(core.get_info()["Stopping"]) == 1
      end
      local sum = 0
      for backend, list in pairs(waiting) do
        local kept = serve(backend, list, now)
        if kept == 0 then
          waiting[backend] = nil
        end
        sum = sum + kept
      end
      total = sum
      core.msleep(POLL_MS)
    end
  end
end)

core.register_cli({ "show", "held" }, "show held : calls that wait for a pool's first open slot", function(applet)
  for backend, list in pairs(waiting) do
    applet:send(backend .. " " .. list.count .. "\n")
  end
end)
