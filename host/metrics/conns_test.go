package metrics

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// Connections to the metrics port that ask for nothing, or in part, are bounded,
// and keep nobody out.
func TestMetricsConnectionsAreBounded(t *testing.T) {
	const scrapersMax = 16
	for what, sent := range map[string]string{"silent": "", "half a request": "GET /metrics HTTP/1.1\r\nHost: x\r\n"} {
		t.Run(what, func(t *testing.T) {
			server, err := NewServer(nil, scrapersMax, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(ln) }()
			defer func() {
				server.Close()
				if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			}()
			const strangers = 3 * scrapersMax
			var conns [strangers]net.Conn
			for i := range conns {
				if conns[i], err = net.Dial("tcp", ln.Addr().String()); err != nil {
					t.Fatal(err)
				}
				defer conns[i].Close()
				if _, err := conns[i].Write([]byte(sent)); err != nil && i < scrapersMax {
					t.Fatal(err)
				}
			}
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second)) // a hung test fails by itself
			if _, err := c.Write([]byte("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			answer, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || answer.StatusCode != http.StatusOK {
				t.Fatalf("%v, %v", answer, err)
			}
			if _, err := io.Copy(io.Discard, answer.Body); err != nil {
				t.Fatal(err)
			}
			// All that are too many were hung up on.
			for i := range strangers - scrapersMax {
				conns[i].SetDeadline(time.Now().Add(5 * time.Second))
				var timeout net.Error
				if _, err := conns[i].Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
					t.Fatalf("connection %d is still open: %v", i, err)
				}
			}
		})
	}
}

// hasty connects as often as the listener accepts.
type hasty struct{ net.Listener }

type silent struct{ net.Conn }

func (hasty) Accept() (net.Conn, error) { return new(silent), nil }
func (hasty) Close() error              { return nil }
func (*silent) Close() error            { return nil }

// Whoever takes all places again and again costs no more than a round of accepts a
// grace.
func TestMetricsConnectionsHaveAGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places, rounds = 8, 100
		s := &scrapers{max: places, conns: map[net.Conn]scraper{}}
		l := s.listen(hasty{})
		begin := time.Now()
		for range places * (rounds + 1) {
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			s.state(c, http.StateNew)
		}
		if d := time.Since(begin); d != rounds*scraperGrace {
			t.Errorf("%d connections took %v, not %v", places*(rounds+1), d, rounds*scraperGrace)
		}
		if n := len(s.conns); n != places {
			t.Errorf("%d connections", n)
		}
		// A listener that is closed does not wait.
		before := time.Now()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Accept(); err != nil || time.Since(before) != 0 {
			t.Errorf("%v, after %v", err, time.Since(before))
		}
	})
}
