package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"openvstorage/backend"
	"openvstorage/backend/fault"
	"openvstorage/backend/mem"
	"openvstorage/internal/gate"
	"openvstorage/internal/wire"
)

// pair is two proxies of one store, and a client that prefers the first.
type pair struct {
	t     *testing.T
	s     *mem.Store // what both keep objects in
	fault [2]*fault.Store
	rig   [2]*rig
	c     *Client
	ns    backend.Namespace
}

func newPair(t *testing.T, change func(*Options)) *pair {
	p := &pair{t: t, s: mem.New(0)}
	must(t, p.s.CreateNamespace(t.Context(), "n"))
	for i := range p.rig {
		p.fault[i] = fault.New(p.s)
		p.rig[i] = newRig(t, "unix", "", p.fault[i], nil)
	}
	p.c = all(t, dial(t, change, p.rig[0].target(), p.rig[1].target()))
	p.ns = p.c.Namespace("n")
	return p
}

// holds has the first proxy stand still in calls: before they do anything, or after.
func (p *pair) holds(op fault.Op, after bool) *gate.Gate {
	g := gate.New()
	p.t.Cleanup(g.Open)
	p.fault[0].Add(fault.Rule{Ops: []fault.Op{op}, Gate: g, After: after})
	return g
}

// killed makes a call and kills the first proxy when it is in the midst of it.
func (p *pair) killed(op fault.Op, after bool, call func() error) error {
	p.t.Helper()
	g := p.holds(op, after)
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	must(p.t, g.Arrived(p.t.Context(), 1))
	p.rig[0].kill()
	return <-ended
}

// second counts the calls of a method at the second proxy.
func (p *pair) second(op fault.Op) *fault.Injected {
	return p.fault[1].Add(fault.Rule{Ops: []fault.Op{op}})
}

// A proxy that is killed in mid-upload costs a retry: the next one puts the object, whether the
// first had put it or not.
func TestKilledInMidUpload(t *testing.T) {
	for _, size := range []int{0, 5000, 1 << 20, wire.BodyMax + 10} {
		for _, after := range []bool{false, true} {
			p := newPair(t, nil)
			data := pattern(size)
			must(t, p.killed(fault.Put, after, func() error { return p.ns.Put(t.Context(), "o", data) }))
			got := make([]byte, size+1)
			n, err := p.s.Namespace("n").Get(t.Context(), "o", got, 0)
			if err != io.EOF || !bytes.Equal(got[:n], data) {
				t.Errorf("%d bytes of %d, %v", n, size, err)
			}
		}
	}
}

// Reads go on at the next proxy.
func TestKilledInARead(t *testing.T) {
	p := newPair(t, nil)
	data := pattern(100_000)
	must(t, p.ns.Put(t.Context(), "o", data))
	got := make([]byte, len(data))
	must(t, p.killed(fault.Get, false, func() error { _, err := p.ns.Get(t.Context(), "o", got, 0); return err }))
	if !bytes.Equal(got, data) {
		t.Error("other bytes")
	}
}

// A PutIf that a killed proxy may have done is not made again: a repeat would conflict with
// itself. Whoever called is told that it is unknown, and finds out by the version.
func TestPutIfInDoubt(t *testing.T) {
	for _, after := range []bool{false, true} {
		p := newPair(t, nil)
		again := p.second(fault.PutIf)
		err := p.killed(fault.PutIf, after, func() error { _, err := p.ns.PutIf(t.Context(), "c", []byte("new"), 0); return err })
		if err == nil || !backend.Unknown(err) {
			t.Errorf("done %v: %v", after, err)
		}
		if again.Hits() != 0 {
			t.Errorf("done %v: it was made again", after)
		}
		info, err := p.ns.Stat(t.Context(), "c")
		if after != (err == nil) {
			t.Fatalf("done %v: %v", after, err)
		}
		if _, err := p.ns.PutIf(t.Context(), "c", []byte("next"), info.Version); err != nil {
			t.Errorf("done %v: the put under the version that is there: %v", after, err)
		}
	}
}

// Neither are namespaces made or deleted twice.
func TestNamespacesInDoubt(t *testing.T) {
	p := newPair(t, nil)
	again := p.second(fault.CreateNamespace)
	if err := p.killed(fault.CreateNamespace, true, func() error { return p.c.CreateNamespace(t.Context(), "m") }); !backend.Unknown(err) || again.Hits() > 0 {
		t.Errorf("create: %v, made again %d times", err, again.Hits())
	}
	p = newPair(t, nil)
	again = p.second(fault.DeleteNamespace)
	if err := p.killed(fault.DeleteNamespace, true, func() error { return p.c.DeleteNamespace(t.Context(), "n") }); !backend.Unknown(err) || again.Hits() > 0 {
		t.Errorf("delete: %v, made again %d times", err, again.Hits())
	}
}

// A delete is made again. If the repeat finds its condition gone, the first may have deleted: that
// is no conflict, which says that nothing was changed.
func TestDeleteInDoubt(t *testing.T) {
	p := newPair(t, nil)
	v, err := p.ns.PutIf(t.Context(), "c", []byte("1"), 0)
	must(t, err)
	must(t, p.ns.Put(t.Context(), "o", []byte("o")))
	must(t, p.killed(fault.Delete, true, func() error {
		return p.ns.Delete(t.Context(), []string{"o"}, &backend.Condition{Name: "c", Version: v})
	}))

	p = newPair(t, nil)
	v, err = p.ns.PutIf(t.Context(), "c", []byte("1"), 0)
	must(t, err)
	must(t, p.ns.Put(t.Context(), "o", []byte("o")))
	err = p.killed(fault.Delete, true, func() error { // it deletes the object of its condition
		return p.ns.Delete(t.Context(), []string{"o", "c"}, &backend.Condition{Name: "c", Version: v})
	})
	if err == nil || errors.Is(err, backend.ErrConflict) || !backend.Unknown(err) {
		t.Errorf("%v", err)
	}
}

// What a repeat says of other bytes holds whatever became of the first attempt.
func TestPutOfOtherBytesInDoubt(t *testing.T) {
	p := newPair(t, nil)
	must(t, p.s.Namespace("n").Put(t.Context(), "o", []byte("theirs")))
	err := p.killed(fault.Put, false, func() error { return p.ns.Put(t.Context(), "o", []byte("ours")) })
	if !errors.Is(err, backend.ErrExists) || backend.Unknown(err) {
		t.Errorf("%v", err)
	}
}

// A proxy that does not answer, though its connection lives, is left after the patience.
func TestHeldUp(t *testing.T) {
	p := newPair(t, func(o *Options) { o.Patience = 20 * time.Millisecond })
	p.holds(fault.Put, false)
	must(t, p.ns.Put(t.Context(), "o", pattern(1<<20)))
	if p.c.peers[0].rests.Load() == 0 {
		t.Error("it is asked first again at once")
	}
}

// If all stand still, the deadline of the call ends it.
func TestAllHeldUp(t *testing.T) {
	p := newPair(t, func(o *Options) { o.Patience = time.Millisecond })
	g := gate.New()
	t.Cleanup(g.Open)
	for _, f := range p.fault {
		f.Add(fault.Rule{Ops: []fault.Op{fault.Get, fault.PutIf}, Gate: g})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := p.ns.Get(ctx, "o", make([]byte, 1), 0); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("get: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := p.ns.PutIf(ctx, "o", nil, 0); !backend.Unknown(err) {
		t.Errorf("put if: %v", err)
	}
}

// line is a connection that can be made to stand still, as one to a process that is stopped.
type line struct {
	at net.Addr
	mu sync.Mutex // held while it stands still
}

func newLine(t *testing.T, to net.Addr) *line {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "l"))
	must(t, err)
	ln := &line{at: l.Addr()}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial(to.Network(), to.String())
			if err != nil {
				c.Close()
				continue
			}
			go ln.copy(c, d)
			go ln.copy(d, c)
		}
	}()
	return ln
}

func (l *line) copy(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		l.mu.Lock()
		l.mu.Unlock() //nolint:staticcheck // it waits for whoever holds it
		if err != nil {
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// A proxy that stands still as a whole is found dead by its silence, and the next one is taken,
// also if the patience is long, and if it took only a part of a put.
func TestStopped(t *testing.T) {
	s := mem.New(0)
	must(t, s.CreateNamespace(t.Context(), "n"))
	stopped, well := newRig(t, "unix", "", s, nil), newRig(t, "unix", "", s, nil)
	l := newLine(t, stopped.at)
	c := all(t, dial(t, func(o *Options) {
		o.Patience = time.Hour
		o.Limits.Ping, o.Limits.Stall = 50*time.Millisecond, 100*time.Millisecond
	}, targetAt(l.at), well.target()))
	ns := c.Namespace("n")
	must(t, ns.Put(t.Context(), "before", []byte{1}))
	l.mu.Lock()
	t.Cleanup(l.mu.Unlock)
	data := pattern(8 << 20)
	must(t, ns.Put(t.Context(), "o", data))
	got := make([]byte, len(data))
	if _, err := ns.Get(t.Context(), "o", got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%v", err)
	}
}

// A proxy that is started again serves the calls that waited for it, if there is no other.
func TestStartedAgain(t *testing.T) {
	s := mem.New(0)
	must(t, s.CreateNamespace(t.Context(), "n"))
	r := newRig(t, "unix", "", s, nil)
	c := all(t, dial(t, func(o *Options) { o.Wait = time.Minute }, r.target()))
	ns := c.Namespace("n")
	must(t, ns.Put(t.Context(), "o", []byte{1}))
	r.kill()
	ended := make(chan error, 1)
	go func() { ended <- ns.Put(t.Context(), "p", []byte{2}) }()
	await(t, "the connection to break", func() bool { return len(c.Connected()) == 0 })
	newRig(t, "unix", r.at.String(), s, nil)
	must(t, <-ended)
	_, err := s.Namespace("n").Stat(t.Context(), "p")
	must(t, err)
}

// A proxy that closes has the next one asked. That none is open is no word about the store: reads
// may succeed later, and changes have not begun.
func TestClosing(t *testing.T) {
	p := newPair(t, nil)
	p.rig[0].store.Store(nil)
	_, err := p.ns.PutIf(t.Context(), "c", []byte("1"), 0)
	must(t, err)
	p.rig[1].store.Store(nil)
	_, err = p.ns.PutIf(t.Context(), "d", nil, 0)
	if !errors.Is(err, ErrUnreachable) || errors.Is(err, backend.ErrClosed) {
		t.Errorf("put if: %v", err)
	}
	_, err = p.ns.Stat(t.Context(), "c")
	if !errors.Is(err, backend.ErrUnavailable) || errors.Is(err, backend.ErrClosed) {
		t.Errorf("stat: %v", err)
	}
}

// Without a proxy a call ends after its wait; after Close at once.
func TestNoProxy(t *testing.T) {
	c := dial(t, func(o *Options) { o.Wait = 20 * time.Millisecond }, targetAt(&net.UnixAddr{Name: filepath.Join(t.TempDir(), "none"), Net: "unix"}))
	ns := c.Namespace("n")
	if err := ns.Put(t.Context(), "o", nil); !errors.Is(err, ErrUnreachable) || errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("put: %v", err)
	}
	if _, err := ns.Get(t.Context(), "o", nil, 0); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("get: %v", err)
	}
	must(t, c.Close())
	if err := ns.Put(t.Context(), "o", nil); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("put: %v", err)
	}
	if _, err := ns.Get(t.Context(), "o", nil, 0); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("get: %v", err)
	}
}

// A proxy that is closed lets requests end, then cancels them; behind it nobody uses the store.
func TestClose(t *testing.T) {
	p := newPair(t, nil)
	must(t, p.ns.Put(t.Context(), "o", []byte{1}))
	g := p.holds(fault.Get, false)
	ended := make(chan error, 1)
	go func() { _, err := p.ns.Get(t.Context(), "o", make([]byte, 1), 0); ended <- err }()
	must(t, g.Arrived(t.Context(), 1))
	soon, end := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer end()
	uses := p.fault[0].Add(fault.Rule{})
	p.rig[0].server.Close(soon)
	before := uses.Hits()
	must(t, <-ended) // by the other proxy
	must(t, p.ns.Put(t.Context(), "p", []byte{2}))
	if uses.Hits() != before {
		t.Error("a closed proxy uses the store")
	}
	p.rig[0].server.Close(t.Context())
}
