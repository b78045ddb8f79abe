-- Makes a server that knows nothing of an organization's keys begin to remember them, and one that was restarted go on.
-- ARGV: 2 for how long nobody may claim, in ms; 3 the epoch that was found, '' for none. Answers 1, or 0: somebody else
--   was first.
if (redis.call('HGET', index, 'epoch') or '') ~= ARGV[3] then return 0 end
redis.call('HSET', index, 'epoch', ARGV[1], 'closed_until', int(now_ms + tonumber(ARGV[2])))
return 1
