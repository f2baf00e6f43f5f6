package hostile_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"openvstorage/device"
	"openvstorage/nbd"
	"openvstorage/nbd/hostile"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// served is a server with a disk for a guest and one for strangers, who find
// each second cluster of theirs written.
type served struct {
	*nbd.Server
	target    map[string]hostile.Target // by network
	guestUnix string
}

func serve(t *testing.T, limits nbd.Limits) *served {
	t.Helper()
	guest, strangers := nbdtest.NewMemory(4<<20), nbdtest.NewMemory(64<<20)
	for off := int64(0); off < strangers.Size(); off += 2 * nbdtest.Cluster {
		if err := strangers.Write(t.Context(), []device.Span{{Off: off, Data: []byte{1}}}); err != nil {
			t.Fatal(err)
		}
	}
	// The guest's requests are tasks, as those that wait for a disk are.
	guest.Hook = func(_ context.Context, op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.OpTryRead || op == nbdtest.OpTryWrite {
			return device.ErrWouldBlock
		}
		return nil
	}
	server, err := nbd.NewServer(nbdtest.Exports{"guest": guest, "strangers": strangers}, nbd.Options{Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	s := &served{Server: server, target: map[string]hostile.Target{}, guestUnix: filepath.Join(t.TempDir(), "s")}
	ended := make(chan error, 2)
	for network, address := range map[string]string{"unix": s.guestUnix, "tcp": "127.0.0.1:0"} {
		ln, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		s.target[network] = hostile.Target{Network: network, Address: ln.Addr().String(), Export: "strangers"}
		go func() { ended <- server.Serve(context.Background(), ln) }()
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-ended; !errors.Is(err, nbd.ErrServerClosed) {
				t.Error(err)
			}
		}
		if st := server.Stats(); st.Held != st.IdleBytes || st.Stacks != 0 {
			t.Errorf("%d bytes are held for nobody, and stacks of %d", st.Held-st.IdleBytes, st.Stacks)
		}
	})
	return s
}

func (s *served) guest(t *testing.T) *nbdclient.Client {
	t.Helper()
	c, err := nbdclient.Dial(t.Context(), "unix", s.guestUnix, nbdclient.Options{Export: "guest"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// rounds has a guest do each kind of request in each size, one after the other
// and many at once, and returns how long the longest took.
func rounds(t *testing.T, c *nbdclient.Client) (longest time.Duration) {
	t.Helper()
	const depth = 32
	for _, n := range []int{512, 4096, 64 << 10, 1 << 20, 4 << 20} {
		for _, typ := range []nbd.Command{nbd.CmdWrite, nbd.CmdRead, nbd.CmdFlush, nbd.CmdTrim, nbd.CmdBlockStatus} {
			start := time.Now()
			done := make(chan *nbdclient.Request, depth)
			many := depth
			if n > 1<<20 {
				many = 1
			}
			for range many {
				r := &nbdclient.Request{Type: typ, Done: func(r *nbdclient.Request) { done <- r }}
				switch typ {
				case nbd.CmdWrite, nbd.CmdRead:
					r.Data = make([]byte, n)
				case nbd.CmdTrim, nbd.CmdBlockStatus:
					r.Length = uint64(n)
				}
				c.Start(r)
			}
			for range many {
				if r := <-done; r.Err != nil {
					t.Fatalf("%v of %d bytes: %v", typ, n, r.Err)
				}
			}
			longest = max(longest, time.Since(start))
		}
	}
	return longest
}

// settled is what a connection of each attack may hold for good, in bytes: what
// it has sent, and its structures. What is read for it is bounded by the sum.
var settled = map[string]int64{
	"heads": 16 << 10, "begun": 400 << 10, "parts": 48 << 10,
	"status": 12 << 10, "silent": 10 << 10, "options": 10 << 10, "idle": 6 << 10,
}

// heap is what lives on the heap.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first one has finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestWhatIsChargedIsHeld: whatever strangers do, what the server says that it
// holds is what the heap has grown by, and within the documented sum. A guest
// gets all of its requests served meanwhile, in no time. Short, and under the
// race detector, which has a heap of its own, there is the guest alone.
func TestWhatIsChargedIsHeld(t *testing.T) {
	connections := 64
	if testing.Short() {
		connections = 8
	}
	// Nobody is sent away, however busy the machine is: what the strangers hold is
	// to be seen.
	limits := nbd.Limits{ServerBytes: 96 << 20, IdleBytes: 16 << 20, RangeTime: time.Minute, HandshakeTimeout: time.Hour, StallTimeout: time.Hour}
	for _, a := range hostile.Attacks() {
		if a.Name == "churn" || a.Metrics || a.TLS { // holds nothing, or is not for this server
			continue
		}
		for _, network := range []string{"unix", "tcp"} {
			if testing.Short() && network == "unix" {
				continue
			}
			t.Run(a.Name+"/"+network, func(t *testing.T) {
				s := serve(t, limits)
				before, held := heap(), s.Stats().Held
				h, err := a.Begin(s.target[network], connections)
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				if n := h.Connections(); n != connections {
					t.Fatalf("%d connections", n)
				}
				most := sum(s.Limits(), int64(connections)) / int64(connections)
				if n, ok := settled[a.Name]; ok {
					most = n
				}
				// A byte more must not make it hold more, so it is asked again.
				for range 3 {
					if err := h.Nag(); err != nil {
						t.Fatal(err)
					}
					if testing.Short() {
						continue
					}
					m := measurement{before: before, held: held}
					if !m.within(s, int64(connections), most) {
						t.Errorf("the heap has grown by %d, charged are %d; %d for each connection, which should be %d at most",
							m.grown, m.charged, m.each, most)
						break
					}
				}
				if d := rounds(t, s.guest(t)); d > 10*time.Second {
					t.Errorf("the guest has waited for %v", d)
				}
			})
		}
	}
}

// measurement is what the heap has grown by, and what of it is charged.
type measurement struct {
	before, held         int64 // of the server without clients
	grown, charged, each int64
}

// within waits until both are the same within 10 %, and a connection has no more
// than most. What has been asked for comes by and by, and goes after a second, in
// which nothing new is asked for. That is waited for, however long it takes on a
// busy machine; what the server does meanwhile is no measurement, as a receive
// buffer that is taken or given back is a good part of the whole.
func (m *measurement) within(s *served, connections, most int64) bool {
	const patience = time.Minute
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		st := s.Stats()
		grown := heap() - m.before
		if s.Stats() != st {
			continue
		}
		m.grown, m.charged = grown, st.Held-m.held
		m.each = (st.Held - st.IdleBytes) / connections
		if abs(m.grown-m.charged)*10 <= m.grown && m.each <= most {
			return true
		}
	}
	return false
}

// sum is the most that the documentation of nbd.Limits allows.
func sum(l nbd.Limits, connections int64) int64 {
	return l.ServerBytes + connections*(1<<20+2*256<<10+int64(l.ReplyBytes)+256<<10) + l.IdleBytes
}

func abs(n int64) int64 { return max(n, -n) }
