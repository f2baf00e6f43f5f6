package wire

import (
	"encoding/binary"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// crowd is a listener whose connections all come from addresses of their own.
type crowd struct {
	*pipes
	n uint32
}

func (c *crowd) Accept() (net.Conn, error) {
	conn, err := c.pipes.Accept()
	if err != nil {
		return nil, err
	}
	c.n++
	return &addressed{conn, &net.TCPAddr{IP: binary.BigEndian.AppendUint32(nil, 10<<24|c.n), Port: 7}}, nil
}

type addressed struct {
	net.Conn
	from net.Addr
}

func (a *addressed) RemoteAddr() net.Addr { return a.from }

// heap is what is in use after a collection.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// Ten thousand connections from as many addresses, which begin their preface and stay, take the
// places of handshakes and no more, and lose them in time. Whoever is there is served.
func TestTenThousandSlowHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &crowd{pipes: newPipes()}
		s := serve(t, l, ServerOptions{}, echo)
		o := options(l)
		o.Dial = l.dial
		good := dial(t, o)
		before, running := heap(), runtime.NumGoroutine()
		var stay []net.Conn
		for range 10_000 {
			c, err := l.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(make([]byte, 1)); err == nil { // it was taken
				stay = append(stay, c)
			}
		}
		synctest.Wait()
		st := s.Stats()
		if st.Handshakes != 128 || st.Conns != 129 || len(stay) != 128 || st.Refused < 9_800 {
			t.Errorf("%+v; %d were taken", st, len(stay))
		}
		if n := runtime.NumGoroutine() - running; n > 3*128 {
			t.Errorf("%d goroutines for 128 handshakes", n)
		}
		if n := heap() - before; n > 16<<20 {
			t.Errorf("%d bytes for connections that have said nothing", n)
		}
		if _, err := good.Call(t.Context(), Request{}); err != nil {
			t.Error(err)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		if st := s.Stats(); st.Handshakes != 0 || st.Conns != 1 {
			t.Errorf("after the time for a handshake: %+v", st)
		}
		dial(t, o)
	})
}

// Hundreds of connections, each of which stops in the middle of a frame's head, take
// what an idle connection takes, and are ended in time.
func TestHundredsOfHalfFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &crowd{pipes: newPipes()}
		s := serve(t, l, ServerOptions{}, echo)
		o := options(l)
		o.Dial = l.dial
		good := dial(t, o)
		before := heap()
		const many = 300
		half := raw(head{kind: kindRequest, id: 1, body: BodyMax, piece: pieceMax})[:headSize/2]
		for range many {
			c := stranger(t, l.pipes)
			defer c.Close()
			if _, err := c.Write(half); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := heap() - before; n > many*144<<10 {
			t.Errorf("%d KiB for a connection", n/many>>10)
		}
		if st := s.Stats(); st.Conns != many+1 || st.Memory != 0 {
			t.Errorf("%+v", st)
		}
		if _, err := good.Call(t.Context(), Request{}); err != nil {
			t.Error(err)
		}
		time.Sleep(14 * time.Second) // Stall, and a look
		if st := s.Stats(); st.Conns != 1 {
			t.Errorf("after the time for a frame: %+v", st)
		}
	})
}
