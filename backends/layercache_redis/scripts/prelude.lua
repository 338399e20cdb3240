-- What stands before every script.
-- KEYS   n pairs of a value and its lease; then, but for a cluster, the cache's stamp and the log
-- ARGV   1: n   2: the stamp that the caller takes for current   3: a new one, where it is lost
--        4: the milliseconds that it has to live, 0 for ever, '' as it is   5: length of the log   6: who writes
--        7: bytes of the prefix that the log leaves out   8 and on: the script's own
local n = tonumber(ARGV[1])
local stamp_key, log_key = KEYS[2 * n + 1], KEYS[2 * n + 2]
local STAMP_LIFE = 2592000000

local function put(key, frame, px)
  if px == '0' then redis.call('SET', key, frame) else redis.call('SET', key, frame, 'PX', px) end
end

-- Appends to the log, which something else under its name does not hinder.
local function tell(...)
  local added = redis.pcall('XADD', log_key, 'MAXLEN', '~', ARGV[5], '*', 'n', ARGV[6], ...)
  if type(added) == 'table' and added.err then
    redis.call('DEL', log_key)
    redis.call('XADD', log_key, 'MAXLEN', '~', ARGV[5], '*', 'n', ARGV[6], ...)
  end
end

-- The cache's stamp. One that is lost is made anew and not as it was: it may have changed before it was lost.
local function current_stamp()
  if not stamp_key then return ARGV[2] end
  local current = redis.pcall('GET', stamp_key)
  if type(current) ~= 'string' or #current ~= 8 then
    put(stamp_key, ARGV[3], ARGV[4] == '' and STAMP_LIFE or ARGV[4])
    -- who knew the former hears of it; the name without the prefix and '%tag:'
    if log_key then tell('m', string.sub(stamp_key, ARGV[7] + 6), 's', ARGV[3]) end
    return ARGV[3]
  end
  if ARGV[4] ~= '' then
    local left, life = redis.call('PTTL', stamp_key), tonumber(ARGV[4])
    if left >= 0 and life == 0 then
      redis.call('PERSIST', stamp_key)
    elseif left >= 0 and left < life * 0.75 then
      redis.call('PEXPIRE', stamp_key, life)
    end
  end
  return current
end

-- Ends a write of all n keys: their leases are void and the log says so.
local function written()
  local from = ARGV[7] + 1
  if n == 1 then
    redis.call('DEL', KEYS[2])
    if log_key then tell('k', string.sub(KEYS[1], from)) end
    return
  end
  local leases, fields = {}, {}
  for i = 1, n do
    leases[i] = KEYS[2 * i]
    fields[2 * i - 1] = 'k'
    fields[2 * i] = string.sub(KEYS[2 * i - 1], from)
  end
  redis.call('DEL', unpack(leases))
  if log_key then tell(unpack(fields)) end
end
