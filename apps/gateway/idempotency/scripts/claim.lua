-- Claims a key for a request, or says what became of it.
-- ARGV: 2 name, 3 body, 4 request, 5 lease ms, 6 kept for ms, 7 most entries, 8 worker, 9 the request whose lost claim may be taken over, or ''.
-- Answers {taken}, {other_body, request}, {running, request}, {lost, request}: its lease has ended,
--   {kept, request, cost, answer}, {spent, request, cost, why}, {full}, {closed, ms}: nobody may claim for so long,
--   {unknown}: this server was never told anything of the organization's keys, {untold}: the worker must first tell it all
--   that it claimed, {restarted, epoch, told, age}: it was restarted `age` ms ago, no worker is left that could still tell
--   it anything, and what the one of that epoch was told until `told` (ms) is known.
local NEW_STORE_MS = 1000000000000  -- as in apps/core/scripts.py
local name, body, request = ARGV[2], ARGV[3], ARGV[4]
local lease_ms, ttl_ms = tonumber(ARGV[5]), tonumber(ARGV[6])

local server = redis.call('HMGET', index, 'epoch', 'closed_until')
if not server[1] then return {'unknown'} end
if redis.call('HEXISTS', claiming(ARGV[1]), ARGV[8]) == 0 then return {'untold'} end
if server[1] ~= ARGV[1] then
  -- What it remembers may be older than what it once confirmed. Who claimed before tells it again, or is dead: a lease has
  -- ended since somebody noticed this server.
  local age_ms = NEW_STORE_MS - math.max(redis.call('PTTL', 'crun:store:' .. ARGV[1]), 0)
  if age_ms >= NEW_STORE_MS then age_ms = 0 end
  local before = claiming(server[1])
  if age_ms < lease_ms then
    for _, worker in ipairs(redis.call('HKEYS', before)) do
      if worker ~= '' and redis.call('HEXISTS', claiming(ARGV[1]), worker) == 0 then
        return {'closed', lease_ms - age_ms}
      end
    end
  end
  return {'restarted', server[1], redis.call('HGET', before, '') or '0', age_ms}
end
local closed_until = tonumber(server[2] or 0)
if closed_until > now_ms then return {'closed', closed_until - now_ms} end

forget_gone()
local entry = entry_of(name)
local found = redis.call('HMGET', entry, 'body', 'request', 'state', 'lease', 'cost', 'answer', 'why')
if found[1] then
  if found[1] ~= body then return {'other_body', found[2]} end
  if found[3] == 'kept' then return {'kept', found[2], found[5], found[6]} end
  if found[3] == 'spent' then return {'spent', found[2], found[5], found[7]} end
  if tonumber(found[4]) > now_ms then return {'running', found[2]} end
  if found[2] ~= ARGV[9] then return {'lost', found[2]} end
elseif redis.call('ZCARD', ends) >= tonumber(ARGV[7]) then
  return {'full'}
end
redis.call('HSET', entry, 'body', body, 'request', request, 'state', 'running', 'lease', int(now_ms + lease_ms))
remember(name, ttl_ms)
return {'taken'}
