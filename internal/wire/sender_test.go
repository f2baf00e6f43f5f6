package wire

import (
	"net"
	"testing"
)

// orders is a sender that nobody runs, to look at what it picks.
func orders(t *testing.T, takes ...uint32) *sender {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	w := [windows]uint32{8 << 20, 68 << 20, 8 << 20, 68 << 20}
	copy(w[:], takes)
	s := newSender(plainLink(a), w, w, func(error) {})
	s.writing = true
	return s
}

func queued(t *testing.T, s *sender, id uint64, p Priority, size int) *message {
	t.Helper()
	m := &message{h: head{kind: kindRequest, id: id, priority: p, body: uint32(size)}, body: Wrap(nil, make([]byte, size))}
	if err := s.put(m); err != nil {
		t.Fatal(err)
	}
	return m
}

// picked is the next batch, by ids; the one before has left.
func picked(s *sender) (ids []uint64, bytes int) {
	s.mu.Lock()
	free, _ := s.settled()
	for _, m := range free {
		m.body.Release()
	}
	s.pick()
	for _, f := range s.batch.frames {
		ids = append(ids, f.h.id)
	}
	bytes = s.batch.size
	s.mu.Unlock()
	s.batch.build()
	return ids, bytes
}

func TestSmallDoesNotWaitBehindLarge(t *testing.T) {
	s := orders(t)
	queued(t, s, 1, Client, BodyMax)
	queued(t, s, 2, Client, BodyMax)
	if ids, n := picked(s); len(ids) == 0 || n > batchBytes+2*pieceMax+1000 {
		t.Fatalf("%v, %d bytes", ids, n)
	}
	queued(t, s, 3, Client, 100)
	if ids, _ := picked(s); ids[0] != 3 || len(ids) < 2 {
		t.Errorf("behind what is large: %v", ids)
	}
	turns := map[uint64]int{}
	for range 40 {
		ids, _ := picked(s)
		for _, id := range ids {
			turns[id]++
		}
	}
	if d := turns[1] - turns[2]; d < -1 || d > 1 {
		t.Errorf("two large ones went on by %v", turns)
	}
}

func TestMaintenanceHasItsTurnAndNoMore(t *testing.T) {
	s := orders(t)
	for id := range uint64(2) {
		queued(t, s, 100+id, Maintenance, BodyMax)
	}
	if ids, n := picked(s); len(ids) == 0 || n > batchBytes+2*pieceMax+1000 {
		t.Fatalf("without clients: %v, %d bytes", ids, n)
	}
	batches, theirs := 0, 0
	for id := range uint64(4 * 64) {
		queued(t, s, id%50, Client, 64)
		if id%4 != 3 {
			continue
		}
		ids, _ := picked(s)
		batches++
		mine := 0
		for i, id := range ids {
			if id >= 100 {
				mine++
				if i < 4 {
					t.Fatalf("maintenance before clients: %v", ids)
				}
			}
		}
		if mine > 1 {
			t.Fatalf("%d frames of maintenance beside clients", mine)
		}
		theirs += mine
	}
	if theirs != batches/clientBatches {
		t.Errorf("%d frames of maintenance in %d batches", theirs, batches)
	}
}

func TestWindowsHoldBackWhatIsLarge(t *testing.T) {
	s := orders(t)
	for id := range uint64(3) {
		queued(t, s, id, Client, BodyMax)
	}
	queued(t, s, 9, Client, 64<<10-overhead)
	seen := map[uint64]int{}
	for range 1000 {
		ids, _ := picked(s)
		for _, id := range ids {
			seen[id]++
		}
	}
	if seen[0] != BodyMax/pieceMax || seen[1] != BodyMax/pieceMax || seen[2] != 0 || seen[9] != 1 {
		t.Errorf("frames by message: %v", seen)
	}
	if s.credited(1, 69<<20) {
		t.Error("more room than there is was taken")
	}
	if !s.credited(1, BodyMax+overhead) {
		t.Error("room was refused")
	}
	if ids, _ := picked(s); len(ids) == 0 || ids[0] != 2 {
		t.Errorf("with room: %v", ids)
	}
}

// A message is given up in each state, and its body is released once.
func TestWithdraw(t *testing.T) {
	s := orders(t)
	released := 0
	make := func(id uint64, size int) *message {
		m := &message{h: head{kind: kindRequest, id: id, body: uint32(size)}, body: Wrap(func() { released++ }, make([]byte, size))}
		if err := s.put(m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	credit := s.credit
	if m := make(1, 100); s.withdraw(m) != waiting || s.withdraw(m) != withdrawn || released != 1 || s.credit != credit {
		t.Errorf("fresh: %d released, room %v", released, s.credit)
	}
	m := make(2, BodyMax)
	picked(s)
	if s.withdraw(m) != begun || released != 1 {
		t.Errorf("begun: %d released while it is written", released)
	}
	if ids, _ := picked(s); len(ids) != 0 || released != 2 {
		t.Errorf("begun: %v are sent, %d released", ids, released)
	}
	m = make(3, 10)
	picked(s)
	if s.withdraw(m) != whole || released != 2 {
		t.Errorf("whole: %d released", released)
	}
	picked(s)
	if released != 3 {
		t.Errorf("whole: %d released", released)
	}
	one, two := make(4, BodyMax), make(5, BodyMax)
	if s.withdraw(two) != waiting || s.withdraw(one) != waiting || released != 5 {
		t.Errorf("without room: %d released", released)
	}
	make(6, 10)
	make(7, BodyMax)
	picked(s)
	s.end(ErrClosed)
	picked(s)
	if released != 7 {
		t.Errorf("at the end: %d released", released)
	}
	if s.put(&message{body: Wrap(func() { released++; s.grant(0, 1) })}) == nil || released != 8 {
		t.Error("taken after the end")
	}
}

func TestPool(t *testing.T) {
	p := NewPool(1<<20, 1<<20)
	for _, n := range []int{0, 1, 1024, 1025, 4096, 4097, 100_000, 1 << 19} {
		b := p.Get(n)
		if b.Len() != n || len(b.Bytes()) != n {
			t.Errorf("%d bytes: %d", n, b.Len())
		}
		class, size := classOf(n)
		if size < n || n > 2*classMin && size > n+n/4+1 || class >= classes {
			t.Errorf("%d bytes are in class %d of %d", n, class, size)
		}
		b.Retain()
		b.Release()
		b.Release()
	}
	if class, size := classOf(BodyMax + HeaderMax); class >= classes || size < BodyMax+HeaderMax {
		t.Errorf("the longest message is in class %d of %d", class, size)
	}
	a := p.Get(1 << 19)
	if b := p.Get(1<<19 + 1); b != nil {
		t.Error("beyond the limit")
	}
	if p.Get(-1) != nil || p.Get(BodyMax+1) != nil {
		t.Error("no length of a body")
	}
	a.Release()
	if p.Taken() != 0 || p.Kept() > 1<<20 {
		t.Errorf("%d are taken, %d kept", p.Taken(), p.Kept())
	}
	defer func() {
		if recover() == nil {
			t.Error("a second release went unnoticed")
		}
	}()
	a.Release()
}
