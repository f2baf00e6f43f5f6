package client_test

import (
	"fmt"
	"testing"

	"openvstorage/alba/albatest"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
)

// What the client itself takes for a put and a read: disks and managers are in memory.
func BenchmarkClient(b *testing.B) {
	rig := albatest.New(b, 4, albatest.Small(policy.Policy{K: 2, M: 1, C: 3, X: 8}), nil)
	if err := rig.CreateNamespace(ctx, "ns"); err != nil {
		b.Fatal(err)
	}
	ns, data := rig.Namespace("ns"), osdtest.Data(256<<10, 1)
	if err := ns.Put(ctx, "read", data); err != nil {
		b.Fatal(err)
	}
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		p := make([]byte, 4096)
		for i := range b.N {
			if _, err := ns.Get(ctx, "read", p, int64(i*4096%len(data))); err != nil {
				b.Fatal(err)
			}
		}
	})
	puts := 0
	b.Run("put", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			puts++
			if err := ns.Put(ctx, fmt.Sprint(puts), data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
