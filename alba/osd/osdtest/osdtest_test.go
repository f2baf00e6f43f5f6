package osdtest

import (
	"context"
	"errors"
	"testing"

	"openvstorage/alba/osd"
	"openvstorage/internal/gate"

	"github.com/google/uuid"
)

var errTest = errors.New("injected")

func memory() *Memory { return NewMemory(uuid.New(), 1<<30) }

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) osd.OSD { return memory() })
}

func TestFaultyWithoutRules(t *testing.T) {
	Run(t, func(*testing.T) osd.OSD { return NewFaulty(memory()) })
}

func TestCorrupt(t *testing.T) {
	m := memory()
	data := Data(3*osd.BlockSize, 1)
	apply(t, m, Put("a", data, 1, 1), Put("b", data, 2, 1), Put("c", data, 3, 1))
	if !m.Corrupt([]byte("b"), osd.BlockSize+5) || m.Corrupt([]byte("b"), len(data)) || m.Corrupt([]byte("x"), 0) {
		t.Error("Corrupt found what is not there, or the reverse")
	}
	_, _, err := read(m, "b", 0, len(data))
	want(t, "read of it", err, osd.ErrCorrupt)
	_, _, err = read(m, "b", 2*osd.BlockSize, osd.BlockSize)
	must(t, err) // another block of it
	bad, next, err := m.Verify(ctx, nil, 2)
	if err != nil || len(bad) != 1 || string(bad[0].Key) != "b" || !errors.Is(bad[0].Err, osd.ErrCorrupt) || string(next) != "b" {
		t.Errorf("verify: %v, %q, %v", bad, next, err)
	}
	apply(t, m, Put("b", data, 2, 1))
	holds(t, m, "b", data, 2, 1)
}

func TestFull(t *testing.T) {
	m := NewMemory(uuid.New(), 10000)
	apply(t, m, Put("a", Data(9000, 1), 1, 1))
	if u, err := m.Usage(ctx); err != nil || !u.Full || u.Used < 9000 {
		t.Errorf("%+v, %v", u, err)
	}
	want(t, "put", m.Apply(ctx, nil, []osd.Update{Put("b", Data(1000, 1), 1, 1), Delete("a2")}), osd.ErrFull)
	want(t, "assert comes first", m.Apply(ctx, []osd.Assert{{Kind: osd.Absent, Key: []byte("a")}}, []osd.Update{Put("b", Data(1000, 1), 1, 1)}), osd.ErrAssert)
	absent(t, m, "b")
	apply(t, m, Delete("a"))
	apply(t, m, Put("b", Data(9000, 1), 1, 1))
	apply(t, m, Put("b", Data(9100, 1), 1, 1)) // in place of the other
	m.SetFull(true)
	want(t, "put", m.Apply(ctx, nil, []osd.Update{Put("b", nil, 1, 1)}), osd.ErrFull)
	apply(t, m, Delete("b"))
	m.SetFull(false)
	m.SetReadOnly(errTest)
	err := m.Apply(ctx, nil, []osd.Update{Delete("b")})
	want(t, "delete", err, osd.ErrReadOnly)
	want(t, "delete", err, errTest)
	must(t, m.Close())
	_, err = m.Stat(ctx, nil)
	want(t, "stat", err, osd.ErrClosed)
}

func TestBeforeAndAfter(t *testing.T) {
	f := NewFaulty(memory())
	before := f.Add(Rule{Ops: []Op{Apply}, Prefix: []byte("a"), Err: errTest, Count: 1})
	want(t, "before", f.Apply(ctx, nil, []osd.Update{Put("b", nil, 1, 1), Put("ab", nil, 1, 1)}), errTest)
	absent(t, f, "b")
	apply(t, f, Put("b", nil, 1, 1), Put("ab", nil, 1, 1))
	if before.Hits() != 1 {
		t.Errorf("%d hits", before.Hits())
	}
	after := f.Add(Rule{Ops: []Op{Apply}, Match: func(k []byte) bool { return string(k) == "c" }, Err: errTest, After: true})
	want(t, "after", f.Apply(ctx, nil, []osd.Update{Put("c", []byte("x"), 1, 1)}), errTest)
	holds(t, f, "c", []byte("x"), 1, 1)
	// A call that fails by itself says so.
	want(t, "its own", f.Apply(ctx, []osd.Assert{{Kind: osd.Absent, Key: []byte("c")}}, nil), osd.ErrAssert)
	after.Remove()
	apply(t, f, Delete("c"))
	f.Add(Rule{Skip: 1, Count: 1, Err: errTest})
	_, err := f.Usage(ctx)
	must(t, err)
	_, err = f.Range(ctx, nil, nil, 1)
	want(t, "second call", err, errTest)
	_, _, err = f.Verify(ctx, nil, 1)
	must(t, err)
}

func TestFlipDownAndCounts(t *testing.T) {
	f := NewFaulty(memory())
	data := Data(5000, 1)
	apply(t, f, Put("k", data, 1, 1))
	flip := f.Add(Rule{Flip: true})
	p, crcs, err := read(f, "k", 0, 5000)
	if err != nil || osd.BlockCRC(1, 0, p[:4096]) != crcs[0] || osd.BlockCRC(1, 1, p[4096:]) == crcs[1] {
		t.Errorf("%v: a reader could not tell", err)
	}
	flip.Remove()
	f.Down(errTest)
	want(t, "down", f.Apply(ctx, nil, nil), errTest)
	_, _, err = read(f, "k", 0, 5000)
	want(t, "down", err, errTest)
	f.Down(nil)
	holds(t, f, "k", data, 1, 1)
	if r, a := f.Counted(Read), f.Counted(Apply); r != (Count{3, 10000}) || a != (Count{2, 5000}) || f.Counted(Stat).Calls != 1 {
		t.Errorf("reads %+v, applies %+v", r, a)
	}
	f.ResetCounts()
	if c := f.Counted(Read); c != (Count{}) {
		t.Errorf("%+v", c)
	}
}

func TestGate(t *testing.T) {
	f := NewFaulty(memory())
	g := gate.New()
	f.Add(Rule{Ops: []Op{Apply}, Gate: g, Err: errTest, After: true})
	done := make(chan error)
	go func() { done <- f.Apply(ctx, nil, []osd.Update{Put("o", nil, 1, 1)}) }()
	must(t, g.Arrived(ctx, 1))
	holds(t, f, "o", nil, 1, 1) // the call is held behind its effect
	c, cancel := context.WithCancel(ctx)
	go func() { done <- f.Apply(c, nil, nil) }()
	must(t, g.Arrived(ctx, 2))
	cancel()
	want(t, "a held call that is cancelled", <-done, context.Canceled)
	g.Open()
	g.Open()
	want(t, "when the gate opens", <-done, errTest)
	want(t, "waiting for a third", g.Arrived(c, 3), context.Canceled)
}
