-- Says that a worker has told this server everything that it claimed and that still runs: its calls before this one.
-- ARGV: 2 worker, 3 kept for ms, 4 there when it stops and claims nothing any more. Answers 1.
local workers = claiming(ARGV[1])
redis.call('HSET', workers, '', int(now_ms))
if ARGV[4] then redis.call('HDEL', workers, ARGV[2]) else redis.call('HSET', workers, ARGV[2], 1) end
redis.call('PEXPIRE', workers, ARGV[3])
return 1
