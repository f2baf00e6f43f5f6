package kvclient

import (
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/internal/wire"
)

// pingPong is a bare socket that sends so many bytes there and so many back.
func pingPong(b *testing.B, there, back int) func() {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in, out := make([]byte, there), make([]byte, back)
		for {
			if _, err := io.ReadFull(c, in); err != nil {
				return
			}
			if _, err := c.Write(out); err != nil {
				return
			}
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	out, in := make([]byte, there), make([]byte, back)
	return func() {
		if _, err := c.Write(out); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLocalRead reads one value of 256 B: in the process, by a socket, and beside them
// a bare socket with the same bytes and an echo of the wire, all by turns in one run. The
// figures are medians of the turns.
func BenchmarkLocalRead(b *testing.B) {
	n := openNode(b)
	c := newClient(b, Options{}, newHost(b, 3, n, kv.Options{}))
	key, value := []byte("some/key/of/usual/length"), make([]byte, 256)
	if _, err := c.Set(b.Context(), key, value); err != nil {
		b.Fatal(err)
	}
	m := c.member(3)
	ways := []struct {
		name string
		once func()
	}{
		{"bare", pingPong(b, 48+12+len(key), 48+16+len(value))},
		{"process", func() {
			if _, err := n.Get(b.Context(), arakoon.Local, key); err != nil {
				b.Fatal(err)
			}
		}},
		{"socket", func() {
			if _, err := c.Get(b.Context(), arakoon.Local, key); err != nil {
				b.Fatal(err)
			}
		}},
		{"status", func() { // an answer that reads nothing: what the wire alone takes
			r, err := m.call(b.Context(), wire.Request{Op: kv.OpStatus, Header: []byte{kv.Version}})
			if err != nil {
				b.Fatal(err)
			}
			r.Release()
		}},
		{"consistent", func() {
			if _, err := c.Get(b.Context(), arakoon.Consistent, key); err != nil {
				b.Fatal(err)
			}
		}},
	}
	const turn = 1000
	took := make([][]float64, len(ways))
	b.ReportAllocs()
	for b.Loop() {
		for i, w := range ways {
			began := time.Now()
			for range turn {
				w.once()
			}
			took[i] = append(took[i], float64(time.Since(began).Nanoseconds())/turn/1000)
		}
	}
	median := func(i int) float64 {
		slices.Sort(took[i])
		return took[i][len(took[i])/2]
	}
	for i, w := range ways {
		b.ReportMetric(median(i), fmt.Sprintf("us-%s", w.name))
	}
	b.ReportMetric(median(2)/median(0), "socket/bare")
}
