-- The idempotency keys of one organization: what every script about them shares. Put in front of each of them.
-- KEYS[1] is crun:{ORGANIZATION}:idempotency, a hash: the server's run id and until when nobody may claim. Every other
-- key begins with it, so all share one hash slot. ARGV[1] is the run id of the server. Times are those of its clock.
--   index:NAME   an entry: body, request, state (running, kept, spent), lease, cost, why, answer
--   index:ends   when each entry is forgotten
-- and of all organizations together, one for each run of a server:
--   crun:claiming:RUN_ID   a hash: the workers that have told this server everything that they claimed, and under '' when
--   one of them last did. What a restarted server still knows is a beginning of its history: all until that moment.
local index = KEYS[1]
local ends = index .. ':ends'

local function entry_of(name)
  return index .. ':' .. name
end

local function claiming(run_id)
  return 'crun:claiming:' .. run_id
end

-- The entry is remembered for so long from now on.
local function remember(name, ttl_ms)
  redis.call('PEXPIRE', entry_of(name), ttl_ms)
  redis.call('ZADD', ends, int(now_ms + ttl_ms), name)
  redis.call('PEXPIRE', ends, ttl_ms)
end

-- Tidies up after entries that are gone.
local function forget_gone()
  redis.call('ZREMRANGEBYSCORE', ends, '-inf', int(now_ms))
  forget_ended()
end
