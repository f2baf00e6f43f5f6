package proxy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// holdTime is how long something is held that nobody asks for: whoever sent a part is gone.
const holdTime = 30 * time.Second

// room is memory that connections share. Whoever finds too little waits for its turn. A
// connection never has more than a share at a time, but for one thing that is larger by itself.
type room struct {
	all   *semaphore.Weighted
	bytes int64
	share int64
}

func newRoom(bytes int64) *room {
	return &room{all: semaphore.NewWeighted(bytes), bytes: bytes, share: max(bytes/2, 1)}
}

// shareOf is what one connection may have of the room.
type shareOf struct {
	room *room
	mine *semaphore.Weighted
}

func (r *room) connection() *shareOf { return &shareOf{r, semaphore.NewWeighted(r.share)} }

// take waits for room for n bytes. What it returns gives them back.
func (s *shareOf) take(ctx context.Context, n int64) (back func(), err error) {
	if n > s.room.bytes {
		return nil, fmt.Errorf("%d bytes at once, and a proxy has memory for %d", n, s.room.bytes)
	}
	mine := min(n, s.room.share)
	if err := s.mine.Acquire(ctx, mine); err != nil {
		return nil, fmt.Errorf("%w: %d bytes: %w", errNoRoom, n, err)
	}
	if err := s.room.all.Acquire(ctx, n); err != nil {
		s.mine.Release(mine)
		return nil, fmt.Errorf("%w: %d bytes: %w", errNoRoom, n, err)
	}
	return func() { s.room.all.Release(n); s.mine.Release(mine) }, nil
}

// holds are the puts of one connection that come in parts.
type holds struct {
	room *shareOf

	mu sync.Mutex
	by map[uint64]*hold
}

// hold is a put of which so many bytes are there. It has one owner at a time: the table, or a
// request.
type hold struct {
	b     []byte
	got   int64
	back  func() // gives its memory back
	timer *time.Timer
}

// put keeps a part, which has to be the next one of its put.
func (h *holds) put(ctx context.Context, p part, bytes []byte) error {
	var d *hold
	if p.at == 0 {
		back, err := h.room.take(ctx, p.size)
		if err != nil {
			return err
		}
		d = &hold{b: make([]byte, p.size), back: back}
	} else {
		var err error
		if d, err = h.take(p.held); err != nil {
			return err
		}
	}
	if int64(len(d.b)) != p.size || d.got != p.at || int64(len(bytes)) > p.size-p.at {
		d.back()
		return fmt.Errorf("%w: bytes %d to %d of %d, where %d of %d are", errBytes, p.at, p.at+int64(len(bytes)), p.size, d.got, len(d.b))
	}
	d.got += int64(copy(d.b[p.at:], bytes))
	return h.keep(p.held, d)
}

// keep puts something into the table, until it is taken or holdTime has passed.
func (h *holds) keep(number uint64, d *hold) error {
	h.mu.Lock()
	_, twice := h.by[number]
	if !twice {
		h.by[number] = d
		d.timer = time.AfterFunc(holdTime, func() { h.forget(number, d) })
	}
	h.mu.Unlock()
	if twice {
		d.back()
		return fmt.Errorf("%w: number %d is held already", errBytes, number)
	}
	return nil
}

func (h *holds) forget(number uint64, d *hold) {
	h.mu.Lock()
	mine := h.by[number] == d
	if mine {
		delete(h.by, number)
	}
	h.mu.Unlock()
	if mine {
		d.back()
	}
}

// take takes something out of the table: it belongs to the caller.
func (h *holds) take(number uint64) (*hold, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.by[number]
	if d == nil {
		return nil, fmt.Errorf("%w: %d", errNotHeld, number)
	}
	delete(h.by, number)
	d.timer.Stop()
	return d, nil
}
