package writebuffer

import (
	"context"
	"log/slog"
	"path"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/sco"
)

// The buffer shares its file system with others: the logs and states of groups,
// the map, TLogs, and whatever a person put there. It takes what it may have
// (Options.Bytes) only as long as a reserve stays for them, and gives files up
// when it does not: pre-written ones first, then stored ones, which the backend
// has. So a full disk reaches the buffer first, where writes can wait (P6).

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

// How often the buffer looks at its file system, and for how long after something
// had no room it does not believe that there is more: the first time, and at most,
// doubled each time. A user's quota shows only that way.
const (
	roomTick = time.Second
	holdMin  = time.Second
	holdMax  = 8 * time.Second
)

// scoSizeMin is how small SCOs get for want of room, in bytes.
const scoSizeMin = BytesMin / scoShare

// room is what the buffer knows of its file system. Guarded by Buffer.mu.
type room struct {
	most     int // files that leave a quarter of the reserve
	cap      int // files at most until hold has passed since lackedAt
	lackedAt time.Time
	hold     time.Duration
	lacked   error // the newest, nil again when that has passed
	scarce   bool  // not even half of the reserve is free
	limited  bool  // it was said that there are fewer files than there may be
	said     struct{ limit, lack time.Time }
}

// sayAgain is how long a log line of the room is not repeated.
const sayAgain = time.Minute

// keeper keeps the buffer's share of its file system.
func (b *Buffer) keeper(ctx context.Context) {
	tick := time.NewTicker(roomTick)
	defer tick.Stop()
	for {
		select {
		case <-b.look.Rung():
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		b.measure()
		if b.giveUp() && b.opt.OnScarce != nil {
			b.opt.OnScarce()
		}
	}
}

// measure sets how many files there may be.
func (b *Buffer) measure() {
	u, err := b.opt.FS.Statfs(b.opt.Dir)
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := b.max
	if err == nil {
		reserve, free := Reserve(u.Total), int64(u.Free)
		b.mu.room.scarce = free < reserve/2
		// Writers get a few files out of the reserve, but not all of it.
		b.mu.room.most = max(0, b.mu.files+files(free-reserve/4, b.scoSize))
		limit = max(b.mu.files+files(free-reserve, b.scoSize), b.fewLocked())
		if u.FewNames(namesReserve) { // each file that goes gives one back
			limit = min(limit, b.mu.files+int(u.FreeNames)-namesReserve)
			b.mu.room.scarce = b.mu.room.scarce || u.FreeNames < namesReserve/2
		}
	}
	switch r := &b.mu.room; {
	case time.Since(r.lackedAt) < r.hold:
		limit = min(limit, r.cap)
	case r.lacked != nil && err == nil && !r.scarce:
		r.lacked = nil
		b.opt.Logger.Info("write buffer: there is room again", "dir", b.opt.Dir)
	}
	b.limitLocked(limit)
}

// files is how many files of size bytes n bytes are, rounded down.
func files(n, size int64) int {
	if n < 0 {
		n -= size - 1
	}
	return int(n / size)
}

// fewLocked is how many files let every vDisk go on: one that is written, the next
// one, and some that are on their way to the backend. b.mu is held.
// They come out of the reserve, but do not take all of it: what the groups need must
// be there, or nothing reaches the backend any more.
func (b *Buffer) fewLocked() int {
	return min(b.max, 2*len(b.mu.logs)+2, b.mu.room.most)
}

// limitLocked lets there be so many files. b.mu is held.
func (b *Buffer) limitLocked(limit int) {
	limit = min(max(limit, 0), b.max)
	old := int(b.limit.Swap(int64(limit)))
	if limit > old {
		b.mu.changed.Send()
		b.fill.Ring()
	}
	r := &b.mu.room
	switch {
	case limit < b.max && !r.limited && time.Since(r.said.limit) >= sayAgain:
		r.limited, r.said.limit = true, time.Now()
		b.opt.Logger.Warn("write buffer: its file system has less room than it may take; it takes less, and writes wait for the backend earlier",
			"dir", b.opt.Dir, "bytes", int64(limit)*b.scoSize, "wanted", b.opt.Bytes)
	case limit == b.max && r.limited && r.lacked == nil:
		r.limited = false
		b.opt.Logger.Info("write buffer: its file system has room for all that it may take", "dir", b.opt.Dir, "bytes", b.opt.Bytes)
	}
}

// lacks notes that something on the file system found no room, and that there is to
// be a file less than there are. It may be called in the append section.
func (b *Buffer) lacks(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lacksLocked(err, min(b.mu.files, int(b.limit.Load()))-1)
}

// lacksLocked notes that there can be only so many files for now. b.mu is held.
func (b *Buffer) lacksLocked(err error, files int) {
	r := &b.mu.room
	now := time.Now()
	switch since := now.Sub(r.lackedAt); {
	case r.hold == 0 || since > 4*holdMax:
		r.hold = holdMin
	case since >= r.hold:
		r.hold = min(2*r.hold, holdMax)
	}
	if r.lacked == nil && time.Since(r.said.lack) >= sayAgain {
		r.said.lack = now
		b.opt.Logger.Warn("write buffer: no room; writes wait until there is some. Make room on the file system, or raise the quota",
			"dir", b.opt.Dir, slog.Any("err", err))
	}
	r.lackedAt, r.lacked, r.cap = now, err, max(files, 0)
	b.limitLocked(min(r.cap, int(b.limit.Load())))
	b.look.Ring()
}

// Lacks tells the buffer that somebody else found no room on its file system: it
// gives some of its own up.
func (b *Buffer) Lacks(err error) { b.lacks(err) }

// keepsLocked reports whether there may be as many files as there are. A writer
// that waits gets one of the few that everybody needs, whatever lacks. b.mu is held.
func (b *Buffer) keepsLocked() bool {
	return b.mu.files <= int(b.limit.Load()) || b.mu.wanted > 0 && b.mu.files <= b.fewLocked()
}

// giveUp reports whether room is scarce, and removes files until there are no more than there may be: those of the
// pool, those that the backend has, and at last those that were prepared for vDisks
// that are idle.
func (b *Buffer) giveUp() (urgent bool) {
	b.mu.Lock()
	over := b.mu.files - int(b.limit.Load())
	urgent = b.mu.room.scarce || time.Since(b.mu.room.lackedAt) < b.mu.room.hold
	b.mu.Unlock()
	for range over { // what is read goes later, and counts until then
		b.mu.Lock()
		if b.keepsLocked() || b.mu.closed {
			b.mu.Unlock()
			return urgent
		}
		name, ok := pop(&b.mu.raw)
		if !ok {
			name, ok = pop(&b.mu.free)
		}
		if ok {
			b.mu.Unlock()
			b.discardFile(path.Join(b.poolDir(), name))
			continue
		}
		ok = (urgent || b.mu.evictable.Len() > 0) && b.evictLocked()
		b.mu.Unlock()
		if !ok && !(urgent && b.steal()) {
			return urgent
		}
	}
	return urgent
}

// roomTries is how often withRoom makes room.
const roomTries = 4

// withRoom does something that must not wait for room: the buffer gives up what it
// can. It is not called in the append section.
func (b *Buffer) withRoom(do func() error) error {
	err := do()
	for try := 0; try < roomTries && full(err); try++ {
		b.lacks(err)
		b.giveUp()
		err = do()
	}
	return err
}

// shape chooses how large SCOs are, and how many there may be, by what the file
// system can hold.
func (b *Buffer) shape() error {
	size := min(scoSizeMax, b.opt.Bytes/scoShare) / sco.ClusterSize * sco.ClusterSize
	u, err := b.opt.FS.Statfs(b.opt.Dir)
	if err != nil {
		return err
	}
	have, err := b.size()
	if err != nil {
		return err
	}
	for has := have + int64(u.Free) - Reserve(u.Total); size > scoSizeMin && has/scoShare < size; {
		size = max(size/2/sco.ClusterSize*sco.ClusterSize, scoSizeMin)
	}
	b.scoSize, b.max = size, int(b.opt.Bytes/size)
	b.limit.Store(int64(b.max))
	b.mu.room.most = b.max // until it is measured
	return nil
}

// size is how many bytes of SCO files there are.
func (b *Buffer) size() (n int64, err error) {
	dirs := []string{b.poolDir()}
	ids, err := b.Volumes()
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		dirs = append(dirs, b.volumeDir(id))
	}
	for _, dir := range dirs {
		names, _ := b.opt.FS.ReadDir(dir) // what cannot be read counts for nothing here
		for _, name := range names {
			if _, err := sco.ParseName(name); err != nil && dir != b.poolDir() {
				continue
			}
			if info, err := b.opt.FS.Stat(path.Join(dir, name)); err == nil {
				n += info.Size()
			}
		}
	}
	return n, nil
}

// full reports whether a call failed for want of room.
func full(err error) bool { return disk.CauseOf(err) == disk.Full }

// MakeRoom removes files of the pool of a buffer that is not open until a reserve is
// free, or there are none: nothing is in them. It returns how many went. all says that
// all are to go, as a quota may not show.
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
