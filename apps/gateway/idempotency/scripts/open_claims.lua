-- Makes a server that knows nothing of an organization's keys begin to remember them.
-- ARGV: 2 for how long nobody may claim, in ms. Answers 1, or 0: somebody else was first.
if redis.call('HSETNX', index, 'epoch', ARGV[1]) == 0 then return 0 end
redis.call('HSET', index, 'closed_until', int(now_ms + tonumber(ARGV[2])))
return 1
