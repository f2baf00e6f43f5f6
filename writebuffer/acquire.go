package writebuffer

import (
	"context"
	"time"
)

// step is how a call of acquire goes on.
type step int

const (
	stepTake   step = iota // a file of the pool
	stepMake               // a new file, which is counted already
	stepEvict              // a stored SCO, whose file comes to the pool
	stepWait               // until something changes
	stepFail               // nothing can be had now
	stepClosed             // the buffer is closed
)

// stealAgain is how often whoever waits for a file looks for one that a log has
// prepared and does not use.
const stealAgain = 100 * time.Millisecond

// acquire makes the file name of SCO size, from the pool, new, or from an
// evicted SCO, with the name durable on return; sparse says that it is not
// pre-written. It waits while the buffer is full of data that is not stored (P6).
func (p *pool) acquire(ctx context.Context, name string) (sparse bool, err error) {
	p.prewriter.asked.Store(true)
	p.want(1)
	defer p.want(-1)
	var lacked error // why no file could be made
	for pressed := false; ; {
		how, from, list, changed := p.choose(lacked != nil)
		switch how {
		case stepTake:
			p.prewriter.fill.Ring()
			sparse = list == &p.raw
			moved, err := p.take(from, name, list)
			if err == nil || moved || !p.instead(from, err) {
				return sparse, err
			}
			return true, p.create(name)
		case stepMake:
			p.prewriter.fill.Ring()
			if lacked = p.create(name); !full(lacked) {
				return true, lacked
			}
			p.noFile(lacked) // from here on only what is evicted is taken
		case stepEvict:
			p.evict(true)
		case stepFail:
			if !p.logs.steal() {
				p.logs.press()
			}
			return false, lacked // it is tried again
		case stepClosed:
			return false, ErrClosed
		case stepWait:
			// Another writer may take the file that was given up for this one, and idle
			// logs prepare files while this one waits: so each turn looks for one again.
			if !p.logs.steal() && !pressed {
				p.logs.press()
			}
			pressed = true
			if err := p.waitFile(ctx, changed); err != nil {
				return false, err
			}
		}
	}
}

// choose says how a call of acquire goes on. With stepTake it returns a file of the pool
// and the list that the file is from. With stepWait it returns the channel to wait for,
// and has counted the caller among those that wait. lacked says that a file could not be
// made: then the caller neither makes another one nor waits.
func (p *pool) choose(lacked bool) (how step, from string, list *[]string, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return stepClosed, "", nil, nil
	}
	if list = &p.free; len(*list) == 0 {
		list = &p.raw
	}
	if from, ok := pop(list); ok {
		return stepTake, from, list, nil
	}
	// One of the few that everybody needs is tried for, whatever lacks.
	if p.files < max(int(p.room.limit.Load()), p.fewLocked()) && !lacked {
		p.files++
		return stepMake, "", nil, nil
	}
	if !p.evictable.empty() {
		return stepEvict, "", nil, nil
	}
	if lacked {
		return stepFail, "", nil, nil
	}
	p.waiting++
	return stepWait, "", nil, p.changed.Next()
}

// waitFile waits until something has changed, or for a while, as one of those that
// wait.
func (p *pool) waitFile(ctx context.Context, changed <-chan struct{}) error {
	defer p.addWaiting(-1)
	again := time.NewTimer(stealAgain)
	defer again.Stop()
	select {
	case <-changed:
	case <-again.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

func (p *pool) want(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted += n
}

func (p *pool) addWaiting(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting += n
}
