package rebuild

import (
	"math/rand/v2"
	"testing"

	"openvstorage/alba/manifest"
)

// Of two candidates the answer does not depend on which is asked first; the highest exact version
// wins, whatever the clocks said, and doubt is told only where the bytes differ.
func TestNewer(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	draw := func() *candidate {
		c := &candidate{version: r.Uint64N(3) + 1, exact: r.IntN(2) == 0, hash: [32]byte{byte(r.IntN(2))}, names: r.Uint64N(2)}
		c.m.Epoch, c.m.Time, c.m.Object = r.Uint64N(2), r.Int64N(2), manifest.ObjectID{byte(r.IntN(200))}
		return c
	}
	for range 20_000 {
		a, b := draw(), draw()
		later, certain := newer(a, b)
		other, certainToo := newer(b, a)
		if later && other {
			t.Fatalf("%+v and %+v are each newer", a, b)
		}
		if a.exact && b.exact && a.version != b.version && (later != (a.version > b.version) || !certain || !certainToo) {
			t.Fatalf("%+v against %+v: %v, %v", a, b, later, certain)
		}
		if a.hash == b.hash && !certain {
			t.Fatalf("%+v and %+v have the same bytes", a, b)
		}
		if !a.exact && !b.exact && a.hash != b.hash && certain {
			t.Fatalf("%+v and %+v are not certain", a, b)
		}
	}
}
