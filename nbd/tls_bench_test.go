package nbd_test

import (
	"context"
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
