package nbd_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// BenchmarkTLS measures server and client together by TCP on loopback, in plain text and by TLS.
func BenchmarkTLS(b *testing.B) {
	for _, mode := range []nbd.TLSMode{nbd.TLSOff, nbd.TLSRequired} {
		for _, bench := range []struct {
			name  string
			typ   nbd.Command
			size  int
			depth int
		}{
			{"Read4K/QD1", nbd.CmdRead, 4096, 1},
			{"Read4K/QD32", nbd.CmdRead, 4096, 32},
			{"Write4K/QD32", nbd.CmdWrite, 4096, 32},
			{"Read1M/QD8", nbd.CmdRead, 1 << 20, 8},
			{"Write1M/QD8", nbd.CmdWrite, 1 << 20, 8},
		} {
			b.Run(mode.String()+"/"+bench.name, func(b *testing.B) {
				s := serveTLS(b, one(nbdtest.NewMemory(64<<20)), mode, nbd.Limits{}, nil)
				opts := nbdclient.Options{Export: "disk", InFlight: bench.depth}
				if mode == nbd.TLSRequired {
					opts.TLS = s.ca.ClientTLS(s.ca.Client("vm"))
				}
				c, err := s.dial(opts)
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				b.SetBytes(int64(bench.size))
				b.ReportAllocs()
				runBench(b, c, bench.typ, 0, bench.size, bench.depth)
			})
		}
	}
}

// BenchmarkBare is what the data of as many requests costs by itself: rounds of them one way, and
// a short answer the other way, with nothing in between. In plain text, and by crypto/tls in full
// records.
func BenchmarkBare(b *testing.B) {
	ca := nbdtest.NewCA(b)
	for _, mode := range []nbd.TLSMode{nbd.TLSOff, nbd.TLSRequired} {
		for _, bench := range []struct {
			name        string
			size, depth int
		}{{"4K/QD32", 4096, 32}, {"1M/QD8", 1 << 20, 8}} {
			b.Run(mode.String()+"/"+bench.name, func(b *testing.B) {
				near, far := pair(b)
				if mode == nbd.TLSRequired {
					server, client := ca.ServerTLS(), ca.ClientTLS(ca.Client("vm"))
					server.DynamicRecordSizingDisabled, client.DynamicRecordSizingDisabled = true, true
					near, far = tls.Client(near, client), tls.Server(far, server)
				}
				round := bench.depth * (nbd.RequestLen + bench.size)
				go func() {
					in, p := bufio.NewReaderSize(far, 128<<10), make([]byte, round)
					for {
						if _, err := io.ReadFull(in, p); err != nil {
							return
						}
						if _, err := far.Write(p[:bench.depth*nbd.SimpleReplyLen]); err != nil {
							return
						}
					}
				}()
				p := make([]byte, round)
				b.SetBytes(int64(bench.size))
				for n := 0; n < b.N; n += bench.depth {
					if _, err := near.Write(p); err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(near, p[:bench.depth*nbd.SimpleReplyLen]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// pair is the two ends of a connection by TCP.
func pair(b *testing.B) (near, far net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	if near, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		b.Fatal(err)
	}
	if far, err = ln.Accept(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// BenchmarkTLSHandshake is how long a client takes from its connection to its export.
func BenchmarkTLSHandshake(b *testing.B) {
	s := serveTLS(b, one(nbdtest.NewMemory(testSize)), nbd.TLSRequired, nbd.Limits{}, nil)
	opts := nbdclient.Options{Export: "disk", TLS: s.ca.ClientTLS(s.ca.Client("vm"))}
	for b.Loop() {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			b.Fatal(err)
		}
		c, err := nbdclient.New(context.Background(), conn, opts)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
