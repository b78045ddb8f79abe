-- The idempotency keys of one organization: what every script about them shares. Put in front of each of them.
-- KEYS[1] is crun:{ORGANIZATION}:idempotency, a hash: the server's run id and until when nobody may claim. Every other
-- key begins with it, so all share one hash slot. ARGV[1] is the run id of the server. Times are those of its clock.
--   index:NAME   an entry: body, request, state (running, kept, spent), lease, cost, why, answer, size
--   index:ends   when each entry is forgotten
--   index:kept   NAME|SIZE of each entry with an answer, by the same time;  index:bytes   their sizes together
local index = KEYS[1]
local ends, kept, bytes = index .. ':ends', index .. ':kept', index .. ':bytes'
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function int(number)
  return string.format('%.0f', number)
end

local function entry_of(name)
  return index .. ':' .. name
end

-- The entry is remembered for so long from now on.
local function remember(name, ttl_ms)
  redis.call('PEXPIRE', entry_of(name), ttl_ms)
  redis.call('ZADD', ends, int(now_ms + ttl_ms), name)
  redis.call('PEXPIRE', ends, ttl_ms)
end

local function uncount(member)
  if redis.call('ZREM', kept, member) == 1 then
    redis.call('DECRBY', bytes, string.match(member, '|(%d+)$'))
  end
end

-- Tidies up after entries that are gone.
local function forget_gone()
  redis.call('ZREMRANGEBYSCORE', ends, '-inf', int(now_ms))
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', kept, '-inf', int(now_ms), 'LIMIT', 0, 100)) do uncount(member) end
end
