package abm_test

import (
	"errors"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
)

// osds registers and claims OSDs 1 to n, each at the endpoint of its number on node "a".
func osds(t *testing.T, c *abm.Client, n byte) {
	t.Helper()
	for i := byte(1); i <= n; i++ {
		if err := c.RegisterOSD(ctx, abm.OSD{LongID: longOf(i), Node: "a", Endpoint: []byte{i}, Health: abm.Health{Capacity: 100}}); err != nil {
			t.Fatal(err)
		}
		if got, err := c.ClaimOSD(ctx, longOf(i)); err != nil || got != uint64(i) {
			t.Fatal(got, err)
		}
	}
}

// Zones hang on nodes: an OSD has that of its node, and follows it.
func TestZonesHangOnNodes(t *testing.T) {
	s, c := manager(t)
	osds(t, c, 2)
	zone := func(n byte) string {
		o, err := c.OSD(ctx, longOf(n), userfn.Consistent)
		if err != nil {
			t.Fatal(err)
		}
		return o.Zone
	}
	for range 2 {
		if err := c.PutNode(ctx, abm.Node{ID: "a", Name: "rack 1", Zone: "east"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.PutNode(ctx, abm.Node{ID: "b", Zone: "west"}); err != nil {
		t.Fatal(err)
	}
	if zone(1) != "east" || zone(2) != "east" {
		t.Fatal(zone(1), zone(2))
	}
	want(t, "a place that another has", c.MoveOSD(ctx, longOf(1), "a", []byte{2}, 0), abm.ErrExists)
	for range 2 {
		if err := c.MoveOSD(ctx, longOf(1), "b", []byte{2}, 200); err != nil {
			t.Fatal(err)
		}
	}
	if o, err := c.OSD(ctx, longOf(1), userfn.Consistent); err != nil || o.Zone != "west" || o.Node != "b" || o.Capacity != 200 || o.State != abm.OSDActive {
		t.Fatal(o, err)
	}
	if err := c.MoveOSD(ctx, longOf(1), "unknown", []byte{2}, 0); err != nil || zone(1) != "" {
		t.Fatal(zone(1), err)
	}
	want(t, "a node with an OSD", c.ForgetNode(ctx, "a"), abm.ErrInUse)
	for range 2 {
		if err := c.ForgetNode(ctx, "b"); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := c.Nodes(ctx, userfn.Consistent); err != nil || len(list) != 1 || list[0] != (abm.Node{ID: "a", Name: "rack 1", Zone: "east"}) {
		t.Fatal(list, err)
	}
	// The hosts learn the node, whatever the OSD's state is there.
	h := host()
	if err := c.DecommissionOSD(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.MoveOSD(ctx, longOf(1), "c", []byte{2}, 0); err != nil {
		t.Fatal(err)
	}
	want(t, "before the hosts know", c.FinishOSD(ctx, 1), abm.ErrInUse)
	if err := c.Carry(ctx, 1, h); err != nil {
		t.Fatal(err)
	}
	list, err := h.OSDs(ctx, 0, 10, userfn.Consistent)
	if err != nil || len(list) != 2 || list[0].Node != "c" || list[0].State != nsm.OSDDraining || list[1].State != nsm.OSDLinked {
		t.Fatal(list, err)
	}
	// A drain that is cancelled, and one that comes to its end.
	for range 2 {
		if err := c.CancelDrain(ctx, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Carry(ctx, 1, h); err != nil {
		t.Fatal(err)
	}
	if list, err := h.OSDs(ctx, 0, 10, userfn.Consistent); err != nil || list[0].State != nsm.OSDLinked || list[0].Node != "c" {
		t.Fatal(list, err)
	}
	if err := c.LoseOSD(ctx, 1); err != nil {
		t.Fatal(err)
	}
	want(t, "of one that is lost", c.CancelDrain(ctx, 1), abm.ErrConflict)
	if err := c.Carry(ctx, 1, h); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.FinishOSD(ctx, 1); err != nil {
			t.Fatal(err)
		}
	}
	check(t, s)
}

// A retired host takes no namespaces and is removed once it has none; a lost one does not come
// back, and holds up nobody.
func TestHostLife(t *testing.T) {
	s, c := manager(t)
	osds(t, c, 1)
	if _, err := c.PutHost(ctx, "host2", []byte("there"), false); err != nil {
		t.Fatal(err)
	}
	if n, err := c.CreateNamespace(ctx, "one", ""); err != nil || n.Host != 1 {
		t.Fatal(n, err)
	}
	_, err := c.RemoveHost(ctx, "host1")
	want(t, "an open host", err, abm.ErrInUse)
	if err := c.SetHost(ctx, "host1", abm.HostRetired); err != nil {
		t.Fatal(err)
	}
	_, err = c.RemoveHost(ctx, "host1")
	want(t, "a host with a namespace", err, abm.ErrInUse)
	for _, name := range []string{"two", "three"} {
		if n, err := c.CreateNamespace(ctx, name, ""); err != nil || n.Host != 2 {
			t.Fatal(n, err)
		}
	}
	if err := c.SetHost(ctx, "host2", abm.HostLost); err != nil {
		t.Fatal(err)
	}
	want(t, "a lost one comes back", c.SetHost(ctx, "host2", abm.HostOpen), abm.ErrConflict)
	if _, err := c.PutHost(ctx, "host2", []byte("there"), false); err != nil {
		t.Fatal(err)
	}
	_, err = c.CreateNamespace(ctx, "four", "")
	want(t, "no host is left", err, abm.ErrNoHost)
	_, err = c.MarkDelivered(ctx, 2, 1)
	want(t, "messages of a lost one", err, abm.ErrConflict)
	// It is told nothing more, so that its queue does not grow for ever.
	_, queued, err := c.Messages(ctx, 2, userfn.Consistent)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DecommissionOSD(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if _, now, err := c.Messages(ctx, 2, userfn.Consistent); err != nil || len(now) != len(queued) {
		t.Fatal(len(now), len(queued), err)
	}
	want(t, "an unknown host", c.SetHost(ctx, "none", abm.HostLost), abm.ErrNotFound)
	check(t, s)

	// Its namespaces go elsewhere, also one that is being removed; then it is forgotten.
	if err := c.SetHost(ctx, "host1", abm.HostOpen); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteNamespace(ctx, "three"); err != nil {
		t.Fatal(err)
	}
	m := abm.Moves{Client: c}
	for number, state := range map[uint64]abm.NamespaceState{2: abm.NamespaceRecovering, 3: abm.NamespaceRemoving} {
		n, err := c.NamespaceByNumber(ctx, number, userfn.Consistent)
		if err != nil {
			t.Fatal(err)
		}
		if n, err = m.RecoverNamespace(ctx, n, 0); err != nil || n.Host != 1 || n.State != state || n.Generation != 1 {
			t.Fatal(n, err)
		}
	}
	n, err := c.NamespaceByNumber(ctx, 1, userfn.Consistent)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.RecoverNamespace(ctx, n, 0)
	want(t, "of a host that is not lost", err, abm.ErrInUse)
	check(t, s)
	if err := c.SetHost(ctx, "host2", abm.HostLost); err != nil { // PutHost has opened it
		t.Fatal(err)
	}
	for range 2 {
		if step, err := c.RemoveHost(ctx, "host2"); err != nil || !step.Done {
			t.Fatal(step, err)
		}
	}
	check(t, s)
	h := host()
	if err := c.Carry(ctx, 1, h); err != nil {
		t.Fatal(err)
	}
	check(t, s)
	// What was being removed goes, and is gone here.
	if step, err := h.Cleanup(ctx, 3, 10); err != nil || !step.Done {
		t.Fatal(step, err)
	}
	_, err = c.NamespaceByNumber(ctx, 3, userfn.Consistent)
	want(t, "it was removed", err, abm.ErrNamespaceNotFound)
}

// A namespace whose host is lost is entered elsewhere from what the disks tell, in any order and
// more than once: the newest stays, and its numbers are above all that were given out before.
func TestRecover(t *testing.T) {
	s, c := manager(t)
	osds(t, c, 2)
	if _, err := c.CreateNamespace(ctx, "vdisk", ""); err != nil {
		t.Fatal(err)
	}
	if err := c.Carry(ctx, 1, host()); err != nil {
		t.Fatal(err)
	}
	if err := c.LoseOSD(ctx, 2); err != nil { // the new host was not there to learn it
		t.Fatal(err)
	}
	if _, err := c.PutHost(ctx, "host2", nil, false); err != nil {
		t.Fatal(err)
	}
	if err := c.SetHost(ctx, "host1", abm.HostLost); err != nil {
		t.Fatal(err)
	}
	n, err := c.Namespace(ctx, "vdisk", userfn.Consistent)
	if err != nil {
		t.Fatal(err)
	}
	moves := abm.Moves{Client: c}
	if n, err = moves.RecoverNamespace(ctx, n, 0); err != nil || n.Host != 2 || n.State != abm.NamespaceRecovering {
		t.Fatal(n, err)
	}
	keys := nsmtest.New(nsm.Functions()...)
	to := nsm.Moves{Client: nsm.NewClient(keys, keys)}
	if err := c.Carry(ctx, 2, to); err != nil {
		t.Fatal(err)
	}
	_, err = to.List(ctx, n.Number, "", "", 10, userfn.Consistent)
	want(t, "before it is served", err, nsm.ErrMoving)
	found := func(name string, id byte, version uint64, revision uint32) nsm.Moved {
		return nsm.Moved{Name: name, Object: &nsm.Object{Name: name, ID: [16]byte{id}, Version: version, Revision: revision, Epoch: 7, Size: 5, Manifest: []byte("m"), ManifestSize: 1,
			Policy: nsm.Policy{K: 1, M: 1, C: 1, X: 1}, Chunks: []nsm.Chunk{{Length: 4096, Fragments: []nsm.Fragment{{OSD: 1}, {OSD: 2}}}}}}
	}
	for range 2 {
		for i, batch := range [][]nsm.Moved{{found("a", 2, 9, 1), found("b", 3, 4, 0)}, {found("a", 1, 8, 5), found("a", 2, 9, 0), found("b", 3, 4, 2)}} {
			_, err := to.ImportChanges(ctx, n.Number, n.Generation, nsm.Changes{After: uint64(i), Last: uint64(i) + 1, Objects: batch})
			if err != nil && !errors.Is(err, nsm.ErrConflict) {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		if rec, err := to.Activate(ctx, n.Number, n.Generation, nsm.Namespace{}); err != nil || rec.Objects != 2 || rec.NextVersion <= 9 || rec.Epochs.Minimum <= 7 {
			t.Fatal(rec, err)
		}
		if n, err = moves.ServeRecovered(ctx, n); err != nil || n.State != abm.NamespaceActive {
			t.Fatal(n, err)
		}
	}
	if a, err := to.Get(ctx, n.Number, "a", userfn.Consistent); err != nil || a.Version != 9 || a.Revision != 1 {
		t.Fatal(a, err)
	}
	if b, err := to.Get(ctx, n.Number, "b", userfn.Consistent); err != nil || b.Revision != 2 {
		t.Fatal(b, err)
	}
	_, err = to.ImportChanges(ctx, n.Number, n.Generation, nsm.Changes{After: 2, Last: 3, Objects: []nsm.Moved{found("a", 9, 10, 0)}})
	want(t, "an importer that comes late", err, nsm.ErrConflict)
	if list, err := to.OSDs(ctx, 0, 10, userfn.Consistent); err != nil || len(list) != 2 || list[1].State != nsm.OSDLost {
		t.Fatal(list, err)
	}
	if err := keys.View(nsm.Check); err != nil {
		t.Fatal(err)
	}
	check(t, s)
}

// A namespace that moves is neither deleted nor moved again; its host that is lost meanwhile ends
// the move, and so does the other one.
func TestMoveAndLoss(t *testing.T) {
	for _, lost := range []string{"host1", "host2"} {
		s, c := manager(t)
		osds(t, c, 1)
		stores := map[uint64]*nsmtest.Store{1: nsmtest.New(nsm.Functions()...), 2: nsmtest.New(nsm.Functions()...)}
		client := func(n uint64) *nsm.Client { return nsm.NewClient(stores[n], stores[n]) }
		if _, err := c.PutHost(ctx, "host2", nil, false); err != nil {
			t.Fatal(err)
		}
		n, err := c.CreateNamespace(ctx, "vdisk", "")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Carry(ctx, 1, client(1)); err != nil {
			t.Fatal(err)
		}
		n.State = 0 // what the caller saw counts by its generation alone
		m := abm.Moves{Client: c}
		_, err = m.BeginMove(ctx, n, 1)
		want(t, "to where it is", err, abm.ErrInvalid)
		if _, err := m.BeginMove(ctx, n, 2); err != nil {
			t.Fatal(err)
		}
		_, err = m.BeginMove(ctx, n, 2)
		want(t, "of a generation that is gone", err, abm.ErrConflict)
		_, err = c.DeleteNamespace(ctx, "vdisk")
		want(t, "deletion", err, abm.ErrInUse)
		if err := c.SetHost(ctx, "host2", abm.HostRetired); err != nil {
			t.Fatal(err)
		}
		_, err = c.RemoveHost(ctx, "host2")
		want(t, "removal of the host that it goes to", err, abm.ErrInUse)
		if err := c.SetHost(ctx, "host2", abm.HostOpen); err != nil {
			t.Fatal(err)
		}
		if err := c.Carry(ctx, 2, client(2)); err != nil {
			t.Fatal(err)
		}
		if err := c.SetHost(ctx, lost, abm.HostLost); err != nil {
			t.Fatal(err)
		}
		mover := abm.Mover{ABM: c, Host: func(n uint64) (*nsm.Client, error) { return client(n), nil }}
		if lost == "host2" { // it stays where it is
			if err := mover.Cancel(ctx, n.Number); err != nil {
				t.Fatal(err)
			}
		} else { // it is recovered, even on the host that has a part of it
			if n, err = c.NamespaceByNumber(ctx, n.Number, userfn.Consistent); err != nil {
				t.Fatal(err)
			}
			if n, err = m.RecoverNamespace(ctx, n, 2); err != nil || n.Generation != 2 {
				t.Fatal(n, err)
			}
			if err := c.Carry(ctx, 2, client(2)); err != nil {
				t.Fatal(err)
			}
			if rec, err := client(2).Record(ctx, n.Number, userfn.Consistent); err != nil || rec.State != nsm.NamespaceImporting || rec.Generation != 2 || rec.Peer != 0 {
				t.Fatal(rec, err)
			}
		}
		check(t, s)
	}
}
