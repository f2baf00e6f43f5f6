package writebuffer

import (
	"context"
	"path"
	"time"
)

// watchRoom measures the room on the file system and keeps the buffer to its share of
// it, until ctx ends. scarce, which may be nil, is called while there is little room.
func (p *pool) watchRoom(ctx context.Context, scarce func()) {
	tick := time.NewTicker(roomTick)
	defer tick.Stop()
	for {
		select {
		case <-p.remeasure.Rung():
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		p.measure()
		if p.giveUp() && scarce != nil {
			scarce()
		}
	}
}

// measure sets how many files there may be.
func (p *pool) measure() {
	u, err := p.fs.Statfs(path.Dir(p.dir))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.room.set(p.room.measured(u, err, p.files, p.logs.count())) {
		p.changed.Send()
		p.prewriter.fill.Ring()
	}
}

// fewLocked is how many files everybody needs to go on; see room.few.
func (p *pool) fewLocked() int { return p.room.few(p.logs.count()) }

// lacks notes that something on the file system found no room, and lowers the
// limit to one file fewer than there are. It may be called in the append section.
func (p *pool) lacks(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.room.lacks(err, min(p.files, int(p.room.limit.Load()))-1)
	p.remeasure.Ring()
}

// noFile notes that there cannot be more files than there are.
func (p *pool) noFile(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.room.lacks(err, p.files)
	p.remeasure.Ring()
}

// usage is what the pool knows of what the buffer holds, in bytes.
func (p *pool) usage() Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Usage{
		Bytes: int64(p.files) * p.scoSize, Lacks: p.room.lacked,
		Free: int64(len(p.free)+len(p.raw)) * p.scoSize,
	}
}

// keepsLocked reports whether there may be as many files as there are. A writer
// that waits gets one of the few that everybody needs, whatever lacks.
func (p *pool) keepsLocked() bool {
	return p.files <= int(p.room.limit.Load()) || p.wanted > 0 && p.files <= p.fewLocked()
}

// giveUp removes files until there are no more than there may be: those of the pool,
// those that the backend has, and at last those that were prepared for vDisks that
// are idle. It reports whether room is scarce.
func (p *pool) giveUp() (urgent bool) {
	p.mu.Lock()
	over := p.files - int(p.room.limit.Load())
	urgent = p.room.scarce || p.room.lacking()
	p.mu.Unlock()
	for range over { // an SCO that is being read counts until its last reader lets go
		name, done := p.surplus()
		if done {
			return urgent
		}
		if name != "" {
			p.discard(path.Join(p.dir, name))
			continue
		}
		if p.evict(urgent) || urgent && p.logs.steal() {
			continue
		}
		return urgent
	}
	return urgent
}

// surplus takes a file out of the pool that is to be removed, "" if it has none. done
// says that none need be.
func (p *pool) surplus() (name string, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keepsLocked() || p.closed {
		return "", true
	}
	name, ok := pop(&p.raw)
	if !ok {
		name, _ = pop(&p.free)
	}
	return name, false
}

// roomTries is how often withRoom makes room.
const roomTries = 4

// withRoom calls do, which must not wait for room. While do finds none, the buffer
// gives files up and withRoom calls it again. It is not called in the append section.
func (p *pool) withRoom(do func() error) error {
	err := do()
	for try := 0; try < roomTries && full(err); try++ {
		p.lacks(err)
		p.giveUp()
		err = do()
	}
	return err
}
