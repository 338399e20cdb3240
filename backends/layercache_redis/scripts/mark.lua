-- Note invalidations in KEYS[1], for a cluster, which has stamps in other slots; or, of no bucket, see that they can be.
-- ARGV 8: '1' before they are made, '0' after   9 and on: the buckets
be_marked(KEYS[1])
for i = 9, #ARGV do mark(KEYS[1], ARGV[i], ARGV[8] == '1') end
return 1
