-- The room for kept answers, of both kinds and of all organizations. Put in front of each script that uses it.
-- It counts across organizations, so the store of kept answers is one server, never a cluster.
--   crun:kept:bytes    what all answers take together;  crun:kept:owners   organization to what its answers take
--   crun:kept:ends     KEY|BYTES of each answer, by when it is forgotten
--   crun:{ORGANIZATION}:kept   the same of one organization, in the order in which they give way
local OVERHEAD = 512
local DAY_MS = 86400000
local room_bytes, room_owners, room_ends = 'crun:kept:bytes', 'crun:kept:owners', 'crun:kept:ends'
local room_time = redis.call('TIME')
local now_ms = tonumber(room_time[1]) * 1000 + math.floor(tonumber(room_time[2]) / 1000)

local function int(number)
  return string.format('%.0f', number)
end

local function owner_of(key)
  return string.match(key, '{(.-)}')
end

local function turns_of(owner)
  return 'crun:{' .. owner .. '}:kept'
end

-- What an answer of so many bytes takes with all that is noted of it.
local function taken_by(size)
  return size + OVERHEAD
end

-- The answer is gone, or goes: it takes nothing any more.
local function leave_room(member)
  if redis.call('ZREM', room_ends, member) == 0 then return end
  local key, taken = string.match(member, '^(.*)|(%d+)$')
  local owner = owner_of(key)
  redis.call('ZREM', turns_of(owner), member)
  redis.call('DECRBY', room_bytes, taken)
  if tonumber(redis.call('ZINCRBY', room_owners, '-' .. taken, owner)) <= 0 then
    redis.call('ZREM', room_owners, owner)
  end
end

-- A cached answer is forgotten; of an idempotent one it is remembered that it was charged.
local function give_way(member)
  leave_room(member)
  local key = string.match(member, '^(.*)|%d+$')
  if string.find(key, ':idempotency:', 1, true) then
    if redis.call('EXISTS', key) == 1 then
      redis.call('HDEL', key, 'answer')
      redis.call('HSET', key, 'state', 'spent', 'why', 'dropped')
    end
  else
    redis.call('DEL', key)
  end
end

local function next_of(owner)
  return redis.call('ZRANGE', turns_of(owner), 0, 0)[1]
end

local function forget_ended()
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', room_ends, '-inf', int(now_ms), 'LIMIT', 0, 100)) do
    leave_room(member)
  end
end

-- Makes room for an answer: whoever is over its bound, or has most when all are over theirs, gives way. False: there is
-- none for one so large.
local function make_room(owner, size, most_of_owner, most)
  local taken = taken_by(size)
  if taken > most_of_owner or taken > most then return false end
  forget_ended()
  while tonumber(redis.call('ZSCORE', room_owners, owner) or 0) + taken > most_of_owner do
    local member = next_of(owner)
    if not member then break end
    give_way(member)
  end
  while tonumber(redis.call('GET', room_bytes) or 0) + taken > most do
    local largest = redis.call('ZRANGE', room_owners, -1, -1)[1]
    local member = largest and next_of(largest)
    if not member then break end
    give_way(member)
  end
  return true
end

-- Cached answers give way before idempotent ones, which protect from being charged twice; of each kind those first that
-- would be forgotten first.
local function take_room(key, size, ttl_ms)
  local owner, taken = owner_of(key), int(taken_by(size))
  local member = key .. '|' .. taken
  local is_idempotent = string.find(key, ':idempotency:', 1, true)
  leave_room(member)  -- it may be noted still of one that is gone: that would be counted for ever
  redis.call('ZADD', room_ends, int(now_ms + ttl_ms), member)
  redis.call('ZADD', turns_of(owner), int(now_ms + ttl_ms + (is_idempotent and DAY_MS or 0)), member)
  redis.call('INCRBY', room_bytes, taken)
  redis.call('ZINCRBY', room_owners, taken, owner)
end
