package maintenance

import (
	"context"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"

	"github.com/google/uuid"
)

// Orphans that are there at a start are deleted by the second collection, not by the first:
// whoever started with the wrong metadata has the time between the two to see it.
func TestPatience(t *testing.T) {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a, n := nsmtest.New(abm.Functions()...), nsmtest.New(nsm.Functions()...)
	managers, host := abm.NewClient(a, a), nsm.NewClient(n, n)
	must(managers.Init(ctx, uuid.New()))
	_, err := managers.PutPreset(ctx, "p", 0, []byte("preset"))
	must(err)
	must(managers.SetDefaultPreset(ctx, "p"))
	number, err := managers.PutHost(ctx, "nsm", nil, false)
	must(err)
	disks := fleet.New(nil)
	disk := osdtest.NewMemory(uuid.New(), 1<<30)
	disks.Add(1, disk.ID(), "node", "disk/1").Attach(disk)
	for range 2 {
		ns, err := managers.CreateNamespace(ctx, uuid.NewString(), "")
		must(err)
		must(managers.Carry(ctx, number, host))
		data := osdtest.Data(100, 1)
		k := manifest.Key{Namespace: ns.Number, Object: manifest.ObjectID{1}}
		v := osd.Value{Data: data, Seed: 1, Epoch: 1, CRCs: []uint32{osd.BlockCRC(1, 0, data)}}
		must(disk.Apply(ctx, nil, []osd.Update{{Key: k.Append(nil), Value: v}}))
		if ns.Number == 1 { // one is gone, the other is there
			_, err = managers.DeleteNamespace(ctx, ns.Name)
			must(err)
			must(managers.Carry(ctx, number, host))
		}
	}
	work := New(Options{ABM: managers, Host: func(uint64) (*nsm.Client, error) { return host, nil }, Fleet: disks})
	must(work.Survey(ctx)) // cleanup of the one that is gone
	for pass, want := range []int{2, 0} {
		must(work.collector.collect(ctx, 0, true))
		list, err := disk.Range(ctx, nil, nil, 10)
		must(err)
		if len(list) != want {
			t.Errorf("behind collection %d there are %d orphans, want %d", pass+1, len(list), want)
		}
	}
}
