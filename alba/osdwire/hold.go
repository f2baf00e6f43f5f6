package osdwire

import (
	"fmt"
	"sync"
	"time"

	"openvstorage/alba/osd"

	"github.com/google/uuid"
)

// applyMost is how many bytes an apply has, at most: its values, their checksums, and what is said
// of each.
const applyMost = osd.ApplyMax + 4*(osd.ApplyMax/osd.BlockSize+osd.UpdatesMax) + osd.UpdatesMax*(assertLeast+osd.KeyMax+osd.BlockSize+updateLeast+osd.KeyMax)

// holdTime is how long something is held that nobody asks for: whoever sent a part is gone.
const holdTime = 30 * time.Second

// holds are what is put together, or was cut up, at the server: of all connections, within a bound
// for all and one for each peer, so that none can keep the others out.
type holds struct {
	each int64 // bytes of one peer

	mu   sync.Mutex
	room int64
	used map[uuid.UUID]int64 // bytes of each peer that has some
	by   map[holdKey]*hold
}

type holdKey struct {
	conn   *connection
	number uint64
}

// hold is memory under a number. It has one owner at a time: the table, or a request.
type hold struct {
	of    *holds
	peer  uuid.UUID
	b     []byte
	got   int // bytes that are there, from the first on
	timer *time.Timer
}

func newHolds(room, each int64) *holds {
	return &holds{room: room, each: each, used: make(map[uuid.UUID]int64), by: make(map[holdKey]*hold)}
}

// begin makes room that belongs to the caller.
func (h *holds) begin(c *connection, size int) (*hold, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if int64(size) > h.room {
		return nil, fmt.Errorf("%w: %d bytes, of %d that are left", errNoRoom, size, h.room)
	}
	if left := h.each - h.used[c.peer]; int64(size) > left {
		return nil, fmt.Errorf("%w: %d bytes, of %d that are left of what one host may have held", errNoRoom, size, left)
	}
	h.room -= int64(size)
	h.used[c.peer] += int64(size)
	return &hold{of: h, peer: c.peer, b: make([]byte, size)}, nil
}

// release gives the memory back.
func (d *hold) release() {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	d.of.room += int64(len(d.b))
	if d.of.used[d.peer] -= int64(len(d.b)); d.of.used[d.peer] == 0 {
		delete(d.of.used, d.peer)
	}
}

// all is what is held, if it is there whole.
func (d *hold) all() ([]byte, error) {
	if d.got < len(d.b) {
		return nil, fmt.Errorf("%w: %d bytes of an apply of %d came", errBytes, d.got, len(d.b))
	}
	return d.b, nil
}

// put keeps a part, which has to be the next one.
func (h *holds) put(c *connection, number uint64, size, at int, part []byte) error {
	var d *hold
	var err error
	if at == 0 {
		d, err = h.begin(c, size)
	} else {
		d, err = h.take(c, number)
	}
	if err != nil {
		return err
	}
	if len(d.b) != size || d.got != at || len(part) > size-at {
		d.release()
		return fmt.Errorf("%w: bytes %d to %d of %d, where %d of %d are", errBytes, at, at+len(part), size, d.got, len(d.b))
	}
	d.got += copy(d.b[at:], part)
	return h.back(c, number, d)
}

// back puts something into the table, until it is taken or holdTime has passed.
func (h *holds) back(c *connection, number uint64, d *hold) error {
	k := holdKey{c, number}
	h.mu.Lock()
	_, twice := h.by[k]
	if !twice {
		h.by[k] = d
		d.timer = time.AfterFunc(holdTime, func() { h.forget(k, d) })
	}
	h.mu.Unlock()
	if twice {
		d.release()
		return fmt.Errorf("%w: number %d is held already", errBytes, number)
	}
	return nil
}

func (h *holds) forget(k holdKey, d *hold) {
	h.mu.Lock()
	mine := h.by[k] == d
	if mine {
		delete(h.by, k)
	}
	h.mu.Unlock()
	if mine {
		d.release()
	}
}

// take takes something out of the table: it belongs to the caller.
func (h *holds) take(c *connection, number uint64) (*hold, error) {
	k := holdKey{c, number}
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.by[k]
	if d == nil {
		return nil, fmt.Errorf("%w: %d", errNotHeld, number)
	}
	delete(h.by, k)
	d.timer.Stop()
	return d, nil
}
