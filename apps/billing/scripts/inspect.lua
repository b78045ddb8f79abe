-- Reads the money state of one organization at one moment and changes nothing; not put behind state.lua, which may.
-- KEYS: 1 crun:{ORGANIZATION}:money. ARGV: 1 run id of the server, 2 how far back settled requests are listed (ms).
-- Answers {} when the state is not known or is of another server, else
--   {balance, credit, held, generation, {request, packed hold, ...}, {requests that were settled lately}}.
local base = string.sub(KEYS[1], 1, -6)
if redis.call('GET', base .. 'epoch') ~= ARGV[1] then return {} end
local state = redis.call('HMGET', KEYS[1], 'balance', 'credit', 'held', 'generation')
if not state[1] then return {} end
local time = redis.call('TIME')
local since = tonumber(time[1]) * 1000 - tonumber(ARGV[2])
state[5] = redis.call('HGETALL', base .. 'holds')
state[6] = redis.call('ZRANGEBYSCORE', base .. 'settled', since, '+inf')
return state
