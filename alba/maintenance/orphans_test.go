package maintenance_test

import (
	"bytes"
	"errors"
	"testing"

	"openvstorage/alba/albatest"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
)

// stray puts fragments on disk 1 that no object names: n objects' worth of one.
func stray(t *testing.T, b *albatest.Backend, ns, epoch uint64, n int) {
	t.Helper()
	for i := range n {
		data := osdtest.Data(4096, uint64(i))
		k := manifest.Key{Namespace: ns, Object: manifest.ObjectID{byte(i), byte(i >> 8), 77}, Version: 0}
		v := osd.Value{Data: data, Seed: 1, Epoch: epoch, CRCs: []uint32{osd.BlockCRC(1, 0, data)}}
		check(t, b.Disks[1].Apply(ctx, nil, []osd.Update{{Key: k.Append(nil), Value: v}}))
	}
}

// More orphans than uploads can have left are not deleted, until somebody says
// so. A few are, however little is stored beside them.
func TestTooManyOrphans(t *testing.T) {
	b := albatest.New(t, 3, twoOne, nil)
	fill(t, b, "ns", 5)
	named := keys(t, b, 1)
	stray(t, b, 1, 1, 60)
	check(t, b.Work.Collect(ctx, 0))
	if n := keys(t, b, 1); n != named {
		t.Errorf("%d fragments are left of which %d are named", n, named)
	}
	stray(t, b, 1, 1, 80)
	for range 2 {
		if err := b.Work.Collect(ctx, 0); !errors.Is(err, maintenance.ErrTooMany) || !errors.Is(b.Work.Alarm(), maintenance.ErrTooMany) {
			t.Errorf("a collection of 80 orphans: %v, alarm %v", err, b.Work.Alarm())
		}
	}
	if n := keys(t, b, 1); n != named+80 {
		t.Errorf("%d of %d fragments are left", n, named+80)
	}
	b.Work.Allow()
	check(t, b.Work.Collect(ctx, 0))
	if n := keys(t, b, 1); n != named || b.Work.Alarm() != nil {
		t.Errorf("%d fragments are left of which %d are named; alarm %v", n, named, b.Work.Alarm())
	}
	verify(t, b, "ns", 5)
	b.Check()
}

// A manager that is not the one that it was is no reason to delete anything:
// whatever it does not know, or has not got to.
func TestManagersDisagree(t *testing.T) {
	for name, change := range map[string]func(b *albatest.Backend){
		"NSM empty": func(b *albatest.Backend) {
			b.States[1].Edit(func(tx userfn.Tx) {
				var all [][]byte
				tx.Range(nil, nil, 1e6, func(k, _ []byte) bool {
					all = append(all, bytes.Clone(k))
					return true
				})
				for _, k := range all {
					tx.Delete(k)
				}
			})
		},
		"fragments of a namespace that the ABM has not got to": func(b *albatest.Backend) { stray(t, b, 900, 1, 3) },
		"fragments of an epoch that the NSM has not got to":    func(b *albatest.Backend) { stray(t, b, 1, 900, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			b := albatest.New(t, 3, twoOne, nil)
			fill(t, b, "ns", 5)
			change(b)
			before := keys(t, b, 1)
			if err := b.Work.Collect(ctx, 0); err == nil {
				t.Error("no complaint")
			}
			_ = b.Work.Survey(ctx) // may fail, too
			if n := keys(t, b, 1); n != before {
				t.Errorf("%d of %d fragments are left", n, before)
			}
		})
	}
}
