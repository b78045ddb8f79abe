-- Claims a key for a request, or says what became of it.
-- ARGV: 2 name, 3 body, 4 request, 5 lease ms, 6 kept for ms, 7 most entries, 8 pause after a restart ms,
--   9 the request whose lost claim may be taken over, or ''.
-- Answers {taken}, {other_body, request}, {running, request}, {lost, request}: its lease has ended,
--   {kept, request, cost, answer}, {spent, request, cost, why}, {full}, {closed, ms}: nobody may claim for so long,
--   {unknown}: this server was never told anything of the organization's keys.
local name, body, request = ARGV[2], ARGV[3], ARGV[4]
local lease_ms, ttl_ms = tonumber(ARGV[5]), tonumber(ARGV[6])

local server = redis.call('HMGET', index, 'epoch', 'closed_until')
if not server[1] then return {'unknown'} end
local closed_until = tonumber(server[2] or 0)
if server[1] ~= ARGV[1] then
  -- What it remembers may be older than what it once confirmed: requests that still run tell it again meanwhile.
  closed_until = math.max(closed_until, now_ms + tonumber(ARGV[8]))
  redis.call('HSET', index, 'epoch', ARGV[1], 'closed_until', int(closed_until))
end
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
