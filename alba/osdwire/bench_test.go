package osdwire

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"

	"github.com/google/uuid"
)

// BenchmarkRead reads 4 KiB of a value: of the OSD itself, over a socket, and beside them a bare
// ping-pong of as many bytes, all by turns in one run. The figures are medians of the turns, in
// microseconds. over/bare is what the socket costs on top of the local read, in bare ping-pongs.
func BenchmarkRead(b *testing.B) {
	m := osdtest.NewMemory(uuid.New(), 16<<20)
	c := newRig(b, "tcp", nil, m).client(m.ID(), nil)
	if err := c.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := m.Apply(b.Context(), nil, []osd.Update{osdtest.Put("k", osdtest.Data(1<<20, 1), 1, 1)}); err != nil {
		b.Fatal(err)
	}
	p, crcs := make([]byte, osd.BlockSize), make([]uint32, 1)
	read := func(o osd.OSD) func() {
		return func() {
			if err := o.Read(b.Context(), []byte("k"), 8*osd.BlockSize, p, crcs); err != nil {
				b.Fatal(err)
			}
		}
	}
	ways := []struct {
		name string
		once func()
	}{{"bare", pingPong(b, 48+11, 48+4+osd.BlockSize)}, {"local", read(m)}, {"socket", read(c)}}
	const turn = 500
	took := make([][]float64, len(ways))
	for b.Loop() {
		for i, w := range ways {
			began := time.Now()
			for range turn {
				w.once()
			}
			took[i] = append(took[i], float64(time.Since(began).Nanoseconds())/turn/1000)
		}
	}
	middle := make([]float64, len(ways))
	for i, w := range ways {
		slices.Sort(took[i])
		middle[i] = took[i][len(took[i])/2]
		b.ReportMetric(middle[i], "us-"+w.name)
	}
	b.ReportMetric((middle[2]-middle[1])/middle[0], "over/bare")
}

// pingPong sends so many bytes over a bare socket and waits for so many back.
func pingPong(b *testing.B, there, back int) func() {
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
