package writebuffer

import (
	"log/slog"
	"path"
	"sync/atomic"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/sco"
)

// The buffer shares its file system with others: the logs and states of groups,
// the map, TLogs, and files of the operator. It takes Options.Bytes only as long as a
// reserve stays for them. When it does not, the buffer gives files up: pre-written ones
// first, then stored ones, which the backend has. So a full disk reaches the buffer
// first, where writes can wait (P6).

// Bounds of Reserve, in bytes.
const (
	reserveBase  = 64 << 20
	reserveMax   = 1 << 30
	reserveShare = 8  // it is at most this share of the file system
	reservePart  = 64 // and grows by this one
)

// Reserve is how many bytes of a file system of total bytes the buffer leaves to
// others.
func Reserve(total uint64) int64 {
	return int64(min(total/reserveShare, reserveBase+total/reservePart, reserveMax))
}

// namesReserve is how many files others can still make, on a file system that bounds
// how many there may be.
const namesReserve = 64

// roomTick is how often the buffer looks at its file system. After a call had no room,
// the buffer does not believe for a while that there is any: a user's quota shows in
// failed calls only. That while is holdMin at first, then doubles up to holdMax.
const (
	roomTick = time.Second
	holdMin  = time.Second
	holdMax  = 8 * time.Second
)

// scoSizeMin is how small SCOs get for want of room, in bytes.
const scoSizeMin = BytesMin / scoShare

// room is what the buffer knows of its file system, and decides from it. Guarded by
// pool.mu, but for limit.
type room struct {
	dir     string
	scoSize int64
	bytes   int64 // Options.Bytes
	max     int   // files, by bytes
	log     *slog.Logger

	limit    atomic.Int64 // files that there is room for, at most max
	most     int          // files that leave a quarter of the reserve
	cap      int          // files at most until hold has passed since lackedAt
	lackedAt time.Time
	hold     time.Duration
	lacked   error // the newest, nil again when that has passed
	scarce   bool  // not even half of the reserve is free
	limited  bool  // it was said that there are fewer files than there may be
	said     struct{ limit, lack time.Time }
}

// sayAgain is how long a log line of the room is not repeated.
const sayAgain = time.Minute

// begin sets the fields that do not change, and allows all files until the room is
// measured.
func (r *room) begin(dir string, scoSize, bytes int64, log *slog.Logger) {
	r.dir, r.scoSize, r.bytes, r.log = dir, scoSize, bytes, log
	r.max = int(bytes / scoSize)
	r.most = r.max
	r.limit.Store(int64(r.max))
}

// few is how many files the given number of logs needs to go on: for each the one that
// is written and the next one, and some that are on their way to the backend. These
// files come out of the reserve, but do not take all of it: the groups need the rest,
// and without the groups nothing reaches the backend.
func (r *room) few(logs int) int { return min(r.max, 2*logs+2, r.most) }

// lacking reports whether something found no room a short while ago.
func (r *room) lacking() bool { return time.Since(r.lackedAt) < r.hold }

// measured takes the answer of the file system, and returns how many files there may
// be, when have of them are there. With an error it knows nothing new.
func (r *room) measured(u disk.Usage, err error, have, logs int) (limit int) {
	limit = r.max
	if err == nil {
		reserve, free := Reserve(u.Total), int64(u.Free)
		r.scarce = free < reserve/2
		// Writers get a few files out of the reserve, but not all of it.
		r.most = max(0, have+files(free-reserve/4, r.scoSize))
		limit = max(have+files(free-reserve, r.scoSize), r.few(logs))
		if u.FewNames(namesReserve) { // each file that goes gives one back
			limit = min(limit, have+int(u.FreeNames)-namesReserve)
			r.scarce = r.scarce || u.FreeNames < namesReserve/2
		}
	}
	switch {
	case r.lacking():
		limit = min(limit, r.cap)
	case r.lacked != nil && err == nil && !r.scarce:
		r.lacked = nil
		r.log.Info("write buffer: there is room again", "dir", r.dir)
	}
	return limit
}

// set lets there be so many files, and reports whether that is more than before.
func (r *room) set(limit int) (more bool) {
	limit = min(max(limit, 0), r.max)
	old := int(r.limit.Swap(int64(limit)))
	switch {
	case limit < r.max && !r.limited && time.Since(r.said.limit) >= sayAgain:
		r.limited, r.said.limit = true, time.Now()
		r.log.Warn("write buffer: its file system has less room than it may take; it takes less, and writes wait for the backend earlier",
			"dir", r.dir, "bytes", int64(limit)*r.scoSize, "wanted", r.bytes)
	case limit == r.max && r.limited && r.lacked == nil:
		r.limited = false
		r.log.Info("write buffer: its file system has room for all that it may take", "dir", r.dir, "bytes", r.bytes)
	}
	return limit > old
}

// lacks notes that something found no room, and that there can be only so many files
// for now.
func (r *room) lacks(err error, files int) {
	now := time.Now()
	switch since := now.Sub(r.lackedAt); {
	case r.hold == 0 || since > 4*holdMax:
		r.hold = holdMin
	case since >= r.hold:
		r.hold = min(2*r.hold, holdMax)
	}
	if r.lacked == nil && time.Since(r.said.lack) >= sayAgain {
		r.said.lack = now
		r.log.Warn("write buffer: no room; writes wait until there is some. Make room on the file system, or raise the quota",
			"dir", r.dir, slog.Any("err", err))
	}
	r.lackedAt, r.lacked, r.cap = now, err, max(files, 0)
	r.set(min(r.cap, int(r.limit.Load())))
}

// files is how many files of size bytes n bytes are, rounded down.
func files(n, size int64) int {
	if n < 0 {
		n -= size - 1
	}
	return int(n / size)
}

// shape chooses how large SCOs are, for a buffer of bytes bytes, of which have are SCO
// files already, on a file system with usage u.
func shape(bytes, have int64, u disk.Usage) (size int64) {
	size = min(scoSizeMax, bytes/scoShare) / sco.ClusterSize * sco.ClusterSize
	for has := have + int64(u.Free) - Reserve(u.Total); size > scoSizeMin && has/scoShare < size; {
		size = max(size/2/sco.ClusterSize*sco.ClusterSize, scoSizeMin)
	}
	return size
}

// full reports whether a call failed for want of room.
func full(err error) bool { return disk.CauseOf(err) == disk.Full }

// MakeRoom removes files of the pool of a buffer that is not open: they hold no data. It
// stops when the reserve is free, or when no file is left, and returns how many it has
// removed. With all it removes every file, since Statfs may not show a quota.
func MakeRoom(fsys disk.FS, dir string, all bool) (n int) {
	pool := path.Join(dir, poolName)
	names, err := fsys.ReadDir(pool)
	if err != nil {
		return 0
	}
	for _, name := range names {
		if u, err := fsys.Statfs(pool); !all && err == nil && int64(u.Free) >= Reserve(u.Total) && !u.FewNames(namesReserve) {
			break
		}
		if fsys.Remove(path.Join(pool, name)) == nil {
			n++
		}
	}
	return n
}
