package nsm_test

import (
	"fmt"
	"testing"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
)

// transfer is namespace 1 between two hosts, in generation 1.
type transfer struct {
	t              *testing.T
	keys           [2]*nsmtest.Store
	source, target nsm.Moves
}

func newTransfer(t *testing.T) *transfer {
	t.Helper()
	s, c := host(t)
	k := nsmtest.New(nsm.Functions()...)
	x := &transfer{t: t, keys: [2]*nsmtest.Store{s, k}, source: nsm.Moves{Client: c}, target: nsm.Moves{Client: nsm.NewClient(k, k)}}
	messages := []nsm.Message{{Kind: nsm.MessageImportNamespace, Namespace: 1, Generation: 1, Host: 1}}
	for osd := uint64(1); osd <= 9; osd++ {
		messages = append(messages, nsm.Message{Kind: nsm.MessageLinkOSD, OSD: osd, Node: fmt.Sprintf("node%d", osd%3)})
	}
	if _, err := x.target.Deliver(ctx, 1, messages); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *transfer) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *transfer) begin() {
	x.t.Helper()
	n, err := x.source.BeginExport(ctx, 1, 1, 2)
	if err != nil || n.State != nsm.NamespaceCopying {
		x.t.Fatal(n, err)
	}
}

// pages carries over all pages, and returns the first as it was.
func (x *transfer) pages() (first nsm.Page, pages int) {
	x.t.Helper()
	for after := ""; ; pages++ {
		p, err := x.source.ExportPage(ctx, 1, 1, after)
		x.must(err)
		if pages == 0 {
			first = p
		}
		for range 2 { // its retry
			x.must(nsmtest.ErrorOf(x.target.ImportPage(ctx, 1, 1, p)))
		}
		if after = p.Last; p.Complete {
			return first, pages + 1
		}
	}
}

func (x *transfer) changes() (last uint64) {
	x.t.Helper()
	there, err := x.target.Record(ctx, 1, userfn.Consistent)
	x.must(err)
	for last = there.Changes; ; {
		ch, err := x.source.ExportChanges(ctx, 1, 1, last)
		x.must(err)
		if ch.Last == last {
			return last
		}
		x.must(nsmtest.ErrorOf(x.target.ImportChanges(ctx, 1, 1, ch)))
		last = ch.Last
	}
}

// finish takes the steps from the freezing on.
func (x *transfer) finish() {
	x.t.Helper()
	x.must(nsmtest.ErrorOf(x.source.FreezeExport(ctx, 1, 1)))
	x.changes()
	there, err := x.target.Record(ctx, 1, userfn.Consistent)
	x.must(err)
	left, err := x.source.LeaveExport(ctx, 1, 1, there)
	x.must(err)
	x.must(nsmtest.ErrorOf(x.target.Activate(ctx, 1, 1, left)))
}

func (x *transfer) put(name string, n uint64) {
	x.t.Helper()
	x.must(nsmtest.ErrorOf(x.source.Put(ctx, 1, nsm.Replace, 0, object(name, n, "same", 1, 2, 3))))
}

// A namespace of many pages goes over, pages and changes in their order only: an agent that was
// slow overwrites nothing that is newer. The source leaves only when all has come.
func TestMoveInOrder(t *testing.T) {
	x := newTransfer(t)
	const objects = 2*nsm.MaxImport + 9
	for i := range uint64(objects) {
		x.put(fmt.Sprintf("n%03d", i), i+1)
	}
	_, err := x.source.ExportPage(ctx, 1, 1, "")
	want(t, "a page before changes are noted", err, nsm.ErrConflict)
	x.begin()
	first, err := x.source.ExportPage(ctx, 1, 1, "")
	x.must(err)
	second, err := x.source.ExportPage(ctx, 1, 1, first.Last)
	x.must(err)
	_, err = x.target.ImportPage(ctx, 1, 1, second)
	want(t, "the second page first", err, nsm.ErrConflict)
	_, err = x.target.ImportChanges(ctx, 1, 1, nsm.Changes{After: 0, Last: 1})
	want(t, "changes before the pages", err, nsm.ErrConflict)
	if _, n := x.pages(); n != 3 {
		t.Fatalf("%d pages", n)
	}
	x.put("n000", 1000)
	_, err = x.target.ImportPage(ctx, 1, 1, first)
	want(t, "a page that comes late", err, nsm.ErrConflict)
	old, err := x.source.ExportChanges(ctx, 1, 1, 0)
	x.must(err)
	x.put("n000", 1001)
	x.changes()
	_, err = x.target.ImportChanges(ctx, 1, 1, old)
	want(t, "changes that come late", err, nsm.ErrConflict)

	x.put("n001", 1002)
	there, err := x.target.Record(ctx, 1, userfn.Consistent)
	x.must(err)
	_, err = x.source.LeaveExport(ctx, 1, 1, there)
	want(t, "leaving before writes are refused", err, nsm.ErrConflict)
	x.must(nsmtest.ErrorOf(x.source.FreezeExport(ctx, 1, 1)))
	_, err = x.source.LeaveExport(ctx, 1, 1, there)
	want(t, "leaving with a change that has not come", err, nsm.ErrConflict)
	x.changes()
	if there, err = x.target.Record(ctx, 1, userfn.Consistent); err != nil {
		t.Fatal(err)
	}
	short := there
	short.Stored--
	_, err = x.source.LeaveExport(ctx, 1, 1, short)
	want(t, "leaving to a host that has less", err, nsm.ErrConflict)
	_, err = x.target.Activate(ctx, 1, 1, there)
	want(t, "service before the source has left", err, nsm.ErrConflict)
	left, err := x.source.LeaveExport(ctx, 1, 1, there)
	x.must(err)
	_, err = x.source.Get(ctx, 1, "n000", userfn.Consistent)
	want(t, "a read of the source", err, nsm.ErrMoved)
	_, err = x.source.CancelExport(ctx, 1, 1)
	want(t, "cancelling what has left", err, nsm.ErrConflict)
	x.must(nsmtest.ErrorOf(x.target.Activate(ctx, 1, 1, left)))
	for name, n := range map[string]uint64{"n000": 1001, "n001": 1002, "n002": 3} {
		if o, err := x.target.Get(ctx, 1, name, userfn.Consistent); err != nil || o.ID != id(n) {
			t.Fatal(name, o, err)
		}
	}
	// What was replaced stays to be deleted at the source; nothing else is deleted for the move.
	for i, s := range x.keys {
		check(t, s)
		c := []nsm.Moves{x.source, x.target}[i]
		if dead, err := c.ListObsolete(ctx, 1, nil, 10, userfn.Consistent); err != nil || len(dead) != 3-3*i {
			t.Fatal(i, dead, err)
		}
	}
	for done, steps := false, 0; !done; steps++ {
		step, err := x.source.DropMoved(ctx, 1, 1, 50)
		if done = step.Done; err != nil || steps > 10 {
			t.Fatal(step, err)
		}
		check(t, x.keys[0])
	}
	if dead, err := x.source.ListObsolete(ctx, 1, nil, 10, userfn.Consistent); err != nil || len(dead) != 3 {
		t.Fatal(dead, err)
	}
	_, err = x.target.DropMoved(ctx, 1, 1, 50)
	want(t, "dropping what is served", err, nsm.ErrConflict)
	if rec, err := x.target.Namespace(ctx, 1, userfn.Consistent); err != nil || rec.Objects != objects {
		t.Fatal(rec, err)
	}
}

// An upload that was put and deleted on the source does not come back on the target, where its id
// is not known: its epoch is closed there. New uploads get versions that were never given out.
func TestMoveClosesEpochs(t *testing.T) {
	x := newTransfer(t)
	x.put("a", 1)
	x.put("b", 2)
	x.must(nsmtest.ErrorOf(x.source.Delete(ctx, 1, []string{"b"}, nil)))
	before, err := x.source.Namespace(ctx, 1, userfn.Consistent)
	x.must(err)
	x.begin()
	x.pages()
	x.finish()
	_, err = x.target.Put(ctx, 1, nsm.Create, 0, object("b", 2, "2", 1, 2, 3))
	want(t, "the retry of what was deleted", err, nsm.ErrEpoch)
	e, err := x.target.Epochs(ctx, 1, userfn.Consistent)
	x.must(err)
	o := object("b", 3, "3", 1, 2, 3)
	o.Epoch = e.Next - 1
	if r, err := x.target.Put(ctx, 1, nsm.Create, 0, o); err != nil || r.Version < before.NextVersion {
		t.Fatal(r, before, err)
	}
	check(t, x.keys[1])
}

// What is served is not begun anew by a message, and a generation that was cancelled is over.
func TestMoveCancelled(t *testing.T) {
	x := newTransfer(t)
	x.put("a", 1)
	for range 2 { // before it began: then its begin comes late
		if n, err := x.source.CancelExport(ctx, 1, 1); err != nil || n.State != nsm.NamespaceActive {
			t.Fatal(n, err)
		}
	}
	_, err := x.source.BeginExport(ctx, 1, 1, 2)
	want(t, "a begin that comes late", err, nsm.ErrConflict)
	if _, err := x.source.BeginExport(ctx, 1, 2, 2); err != nil {
		t.Fatal(err)
	}
	x.put("a", 2)
	if n, err := x.source.CancelExport(ctx, 1, 2); err != nil || n.State != nsm.NamespaceActive {
		t.Fatal(n, err)
	}
	_, err = x.source.FreezeExport(ctx, 1, 2)
	want(t, "freezing what was cancelled", err, nsm.ErrConflict)
	x.must(nsmtest.ErrorOf(x.source.Deliver(ctx, 11, []nsm.Message{{Kind: nsm.MessageImportNamespace, Namespace: 1, Generation: 9, Host: 2}})))
	if o, err := x.source.Get(ctx, 1, "a", userfn.Consistent); err != nil || o.ID != id(2) {
		t.Fatal(o, err)
	}
	// The target gives up what had come, and takes the next generation.
	page := nsm.Page{Last: "z", Complete: true}
	x.must(nsmtest.ErrorOf(x.target.ImportPage(ctx, 1, 1, page)))
	x.must(nsmtest.ErrorOf(x.target.Deliver(ctx, 11, []nsm.Message{{Kind: nsm.MessageCancelImport, Namespace: 1, Generation: 1, Host: 1}})))
	_, err = x.target.Get(ctx, 1, "a", userfn.Consistent)
	want(t, "a read of what was cancelled", err, nsm.ErrMoved)
	_, err = x.target.ImportPage(ctx, 1, 1, nsm.Page{After: "z", Last: "zz"})
	want(t, "a page of what was cancelled", err, nsm.ErrConflict)
	x.must(nsmtest.ErrorOf(x.target.Deliver(ctx, 12, []nsm.Message{{Kind: nsm.MessageImportNamespace, Namespace: 1, Generation: 3, Host: 1}})))
	if n, err := x.target.Record(ctx, 1, userfn.Consistent); err != nil || n.State != nsm.NamespaceImporting || n.Generation != 3 || n.Complete {
		t.Fatal(n, err)
	}
	for _, s := range x.keys {
		check(t, s)
	}
}
