-- Says that a request with a claim still runs, also to a server that has forgotten it.
-- ARGV: 2 name, 3 body, 4 request, 5 lease ms, 6 kept for ms. Answers 1, or 0: the key is somebody else's.
local name, body, request = ARGV[2], ARGV[3], ARGV[4]
local entry = entry_of(name)
local found = redis.call('HMGET', entry, 'request', 'state')
if found[1] and (found[1] ~= request or found[2] ~= 'running') then return 0 end
redis.call('HSET', entry, 'body', body, 'request', request, 'state', 'running',
  'lease', int(now_ms + tonumber(ARGV[5])))
remember(name, tonumber(ARGV[6]))
return 1
