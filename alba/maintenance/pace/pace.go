package pace

import (
	"context"
	"sync"
	"time"
)

// DefaultLeast is what maintenance may move beside clients in any case, bytes a second.
const DefaultLeast = 4 << 20

// Options configure a Pace; all have defaults.
type Options struct {
	Clients func() uint64 // bytes that clients have moved so far; nil: there are no clients
	Least   int64         // bytes a second that maintenance may move in any case; default DefaultLeast
	Most    int64         // at most; default 0: as many as it can
}

// Pace has maintenance wait, so that it keeps to the rate of a Controller. It is one for all
// kinds of maintenance of a process. Safe for concurrent use. It has no goroutine of its own.
type Pace struct {
	clients func() uint64

	mu      sync.Mutex
	control *Controller
	begun   time.Time // the window
	before  uint64    // clients' bytes when it began
	moved   uint64    // by maintenance, in the window
	free    time.Time // when what was let through so far has passed
}

// New makes a Pace.
func New(o Options) *Pace {
	if o.Least == 0 {
		o.Least = DefaultLeast
	}
	p := &Pace{clients: o.Clients, control: NewController(o.Least, o.Most)}
	if p.clients == nil {
		p.clients, p.control.alone = func() uint64 { return 0 }, true
	}
	return p
}

// Wait waits until maintenance may move so many bytes. The error is that of ctx.
func (p *Pace) Wait(ctx context.Context, bytes uint64) error {
	for {
		until, ok := p.ask(time.Now(), bytes)
		if ok {
			return ctx.Err()
		}
		t := time.NewTimer(time.Until(until))
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// Rate is how many bytes a second maintenance may move now; limited is false if there is no
// bound.
func (p *Pace) Rate() (bytes float64, limited bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.control.Rate()
}

// ask lets bytes through, or says when to ask again.
func (p *Pace) ask(now time.Time, bytes uint64) (again time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.roll(now)
	rate, limited := p.control.Rate()
	end := p.begun.Add(Window)
	switch {
	case !limited:
		p.free = now
	case rate == 0:
		return end, false
	case p.free.After(now):
		return earlier(p.free, end), false
	default:
		p.free = now.Add(time.Duration(float64(bytes) / rate * float64(time.Second)))
	}
	p.moved += bytes
	return now, true
}

// roll begins a new window if the last one is over.
func (p *Pace) roll(now time.Time) {
	if p.begun.IsZero() {
		p.begun, p.before, p.free = now, p.clients(), now
		return
	}
	took := now.Sub(p.begun)
	if took < Window {
		return
	}
	total := p.clients()
	p.control.Passed(took, total-min(p.before, total), p.moved)
	p.begun, p.before, p.moved = now, total, 0
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
