-- What stands before the scripts that note invalidations, after the prelude.

-- Note in the hash of marks that a tag of some bucket was invalidated; or, as 'pending', that one is being. The field '*'
-- names the hash: one that was lost and made anew is another. The field 'n' counts.
local function mark(key, bucket, pending)
  if redis.pcall('HEXISTS', key, '*') ~= 1 then
    redis.call('DEL', key)
    redis.call('HSET', key, '*', ARGV[3])
  end
  redis.call('HSET', key, bucket, pending and 'pending' or redis.call('HINCRBY', key, 'n', 1))
  redis.call('PEXPIRE', key, STAMP_LIFE)
end
