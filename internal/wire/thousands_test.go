package wire

import (
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// Ten thousand connections that say nothing take no more memory and goroutines than the limits
// allow, keep nobody from being served who is connected, and are all gone when their time is
// over. Then others connect as before.
func TestTenThousandConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := serve(t, l, ServerOptions{}, echo)
		o := options(l)
		o.Dial = l.dial
		good := dial(t, o)
		before := runtime.NumGoroutine()
		var held []net.Conn
		for i := range 10_000 {
			c, err := l.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			held = append(held, c)
			if i%1000 == 0 {
				if _, err := good.Call(t.Context(), Request{Op: 1}); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > 2*s.o.Conns {
			t.Errorf("%d goroutines more", n)
		}
		if st := s.Stats(); st.Conns > s.o.Conns || st.Memory != 0 || st.Refused < 10_000-int64(s.o.Conns) {
			t.Errorf("%+v", st)
		}
		time.Sleep(time.Minute)
		for _, c := range held {
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := good.Call(t.Context(), Request{Op: 1}); err != nil {
			t.Error(err)
		}
		if _, err := dial(t, o).Call(t.Context(), Request{Op: 1}); err != nil {
			t.Error(err)
		}
	})
}
