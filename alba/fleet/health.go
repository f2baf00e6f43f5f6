package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Time is counted in ticks of Fleet.Watch and not by the clock. While the process or the
// machine stands still, no tick passes, and so no disk fails to answer.
const (
	tick = 250 * time.Millisecond

	// A disk does not answer if a request has been under way for hangAfter plus the
	// time that the bytes under way take at hangRate, or for hangMost. Writes are
	// done in order, so for them the time counts from the last that came back.
	hangAfter = 4 * time.Second
	hangRate  = 6 << 20 // bytes a second
	hangMost  = 8 * time.Second
	// A request may make many calls on the file system. As long as those come back
	// (see Disk.Follow), it may take callsTimes as long.
	callsTimes = 8
	// Reading values back may take so long.
	verifyMost = 30 * time.Second

	// A request is slow if it takes slowTimes as long as those of the other disks, and
	// slowLeast for each unit at least (see units). A disk is slow after slowStrikes
	// slow requests over slowSpan or more, or with one under way for slowAfter.
	slowTimes   = 5
	slowLeast   = 50 * time.Millisecond
	slowAfter   = 2 * time.Second
	slowStrikes = 3
	slowSpan    = time.Second
	// A slow disk is well again after wellAfter without a slow request, if wellSamples
	// others came back, or after idleAfter with one other or without any.
	wellAfter   = 3 * time.Second
	wellSamples = 4
	idleAfter   = 5 * time.Second
)

func ticks(d time.Duration) int64 { return int64(d / tick) }

// health is what is observed of the requests to a disk, and the condition that follows
// from it.
type health struct {
	of    string // the disk, for errors
	now   func() time.Time
	ticks *atomic.Int64 // of Fleet.Watch

	costs [2]latency      // of reads and writes, for each unit
	tails [2]tail         // of reads and writes, by size; changed under mu
	par   [2]atomic.Int64 // what they take on the other disks, nanoseconds; 0: not known

	mu        sync.Mutex
	kinds     [kinds]calls
	busy      int64 // last tick at which something was under way
	turned    int64 // every call on the medium from before this tick has come back; 0: not known
	condition Condition
	silent    bool // it does not answer

	answers context.Context // ends when it does not answer; renewed
	silence context.CancelFunc
}

// begin notes that a request begins, and refuses it if the disk does not answer. It
// returns the place of the request, for end.
func (h *health) begin(k kind, bytes int) (int32, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.silent {
		return 0, h.silentLocked()
	}
	return h.kinds[k].add(h.ticks.Load(), h.now(), bytes), nil
}

// beginAnyway is begin for a request that is made even if the disk does not answer.
func (h *health) beginAnyway(k kind, bytes int) int32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kinds[k].add(h.ticks.Load(), h.now(), bytes)
}

func (h *health) silentLocked() error {
	return fmt.Errorf("%s: %w: %s", h.of, ErrNotAnswering, h.condition.Reason)
}

// end notes that a request has come back. A request that was given up before its turn
// says nothing of the disk. The time of a read or write counts if it succeeded.
func (h *health) end(k kind, i int32, err error) {
	now := h.ticks.Load()
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &h.kinds[k]
	began := c.list[i]
	c.remove(i)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	c.done = now
	h.busy = now
	if err != nil || k > writing {
		return
	}
	took := h.now().Sub(began.at)
	cost := time.Duration(float64(took) / units(began.bytes))
	h.costs[k].note(cost)
	h.tails[k].note(began.bytes, took)
	if h.slower(k, cost) {
		c.strike(now)
	} else {
		c.samples++
	}
}

// slower reports whether a cost for a unit is far above that of the other disks.
func (h *health) slower(k kind, cost time.Duration) bool {
	par := time.Duration(h.par[k].Load())
	return par > 0 && cost >= slowLeast && cost >= slowTimes*par
}

// judge looks at what is under way, and returns the condition before and after. turn tells
// whether calls on the disk's file system come back (see Disk.Follow); nil: nobody knows.
// fail is why writes fail, and since when; "": they do not.
func (h *health) judge(now int64, turn func() bool, fail string, failing time.Time) (before, after Condition) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before = h.condition
	switch {
	case turn == nil:
		h.turned = 0
	case turn():
		h.turned = now
	}
	after = h.conditionLocked(now, fail, failing)
	if after.State == before.State && after.State != Well {
		after.Since = before.Since
	}
	h.condition = after
	return before, after
}

func (h *health) conditionLocked(now int64, fail string, failing time.Time) Condition {
	for k := range h.kinds {
		if h.kinds[k].count > 0 {
			h.busy = now
		}
	}
	if why, since := h.hungLocked(now); why != "" {
		if !h.silent {
			h.silent = true
			h.silence()
		}
		return Condition{Failing, why, since}
	}
	if h.silent {
		h.silent = false
		h.answers, h.silence = context.WithCancel(context.Background())
		// It gets its part again when it has shown that it is well.
		for _, k := range []kind{reading, writing} {
			c := &h.kinds[k]
			c.strikes, c.firstStrike, c.lastStrike, c.samples = slowStrikes, now-ticks(slowSpan), now, 0
		}
	}
	if fail != "" {
		return Condition{Failing, fail, failing}
	}
	return h.slowLocked(now)
}

// hungLocked says which request has not come back for too long, and since when that has
// been under way; "": none.
func (h *health) hungLocked(now int64) (why string, since time.Time) {
	bytes := h.kinds[reading].bytes + h.kinds[writing].bytes
	allowed := min(hangAfter+time.Duration(float64(bytes)/hangRate*float64(time.Second)), hangMost)
	for k := range h.kinds {
		c := &h.kinds[k]
		o := c.oldest()
		if o == nil {
			continue
		}
		from := o.begun
		if kind(k) == writing {
			from = max(from, c.done)
		}
		most := allowed
		if kind(k) == verifying {
			most = verifyMost
		}
		// If calls on the file system come back, it is each call that must not take so
		// long: a request may make many of them. A disk that is silent already is
		// there again only when the request itself has come back.
		stuck := h.silent || now-h.turned+1 >= ticks(most)
		if over := now - from; over >= ticks(most) && (stuck || over >= ticks(callsTimes*most)) {
			return kindNames[k] + " has not come back", o.at
		}
	}
	return "", time.Time{}
}

// slowLocked is the condition of a disk that answers and whose writes do not fail: slow
// or well.
func (h *health) slowLocked(now int64) Condition {
	was := h.condition.State == Slow
	var worst Condition
	for _, k := range []kind{reading, writing} {
		c := &h.kinds[k]
		o := c.oldest()
		if o != nil && now-o.begun >= ticks(slowAfter) {
			took := time.Duration(now-o.begun) * tick
			if h.slower(k, time.Duration(float64(took)/units(o.bytes))) {
				c.strike(now)
				c.strikes, c.firstStrike = slowStrikes, min(c.firstStrike, now-ticks(slowSpan))
			}
		}
		switch {
		case c.strikes == 0:
			continue
		case now-h.busy >= ticks(idleAfter),
			now-c.lastStrike >= ticks(wellAfter) && (c.samples >= wellSamples || c.count == 0 && now-c.done >= ticks(idleAfter)),
			now-c.lastStrike >= ticks(idleAfter) && c.samples > 0: // a slow disk is read from seldom
			c.strikes = 0
			continue
		}
		if was || c.strikes >= slowStrikes && c.lastStrike-c.firstStrike >= ticks(slowSpan) {
			worst = Condition{State: Slow, Reason: h.pace(k), Since: h.now()}
		}
	}
	return worst
}

// pace says for people how long requests take, and how long on the other disks.
func (h *health) pace(k kind) string {
	own, par := time.Duration(h.costs[k].mean.Load()), time.Duration(h.par[k].Load())
	what := [...]string{"reads", "writes"}[k]
	if own < slowTimes*par || par == 0 {
		return fmt.Sprintf("%s have been held up", what)
	}
	return fmt.Sprintf("%s take %v, and %v on the other disks", what, own.Round(time.Millisecond), par.Round(100*time.Microsecond))
}

// state returns the condition.
func (h *health) state() Condition {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.condition
}

// mute is not nil if the disk does not answer, and says so.
func (h *health) mute() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.silent {
		return nil
	}
	return h.silentLocked()
}

// readsHang reports whether the disk does not answer because of its reads.
func (h *health) readsHang() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.kinds[reading].oldest()
	return h.silent && o != nil && h.ticks.Load()-o.begun >= ticks(hangAfter)
}

// answering ends as soon as the disk is seen not to answer.
func (h *health) answering() context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.answers
}

// behind reports whether the disk is not well and has something to write.
func (h *health) behind() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.condition.State != Well && h.kinds[writing].count > 0
}
