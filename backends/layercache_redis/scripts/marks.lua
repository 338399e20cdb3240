-- What stands before the scripts that note invalidations, after the prelude.

-- See to it that there is a hash of marks. The field '*' names it: one that was lost and made anew is another.
local function be_marked(key)
  -- first, as a server that is out of memory lets a script go on that has written something
  if redis.call('PEXPIRE', key, STAMP_LIFE) == 1 and redis.pcall('HEXISTS', key, '*') == 1 then return end
  redis.call('DEL', key)
  redis.call('HSET', key, '*', ARGV[3])
  redis.call('PEXPIRE', key, STAMP_LIFE)
end

-- Note that a tag of some bucket was invalidated; or, as 'pending', that one is being. The field 'n' counts.
local function mark(key, bucket, pending)
  be_marked(key)
  redis.call('HSET', key, bucket, pending and 'pending' or redis.call('HINCRBY', key, 'n', 1))
end
