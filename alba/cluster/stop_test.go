package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/cluster"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/arakoon"
	"openvstorage/arakoon/state"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format/unknown"
)

// recorder takes down the last call.
type recorder struct {
	userfn.Reader
	name    string
	version uint32
	arg     []byte
}

var errRecorded = errors.New("recorded")

func (r *recorder) Call(_ context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	r.name, r.version, r.arg = name, version, bytes.Clone(arg)
	return nil, errRecorded
}

func (r *recorder) sequence() *state.Sequence {
	return new(state.Sequence).Call(r.name, r.version, r.arg)
}

// strange is a call that meets what this release cannot read.
type strange struct {
	name  string
	call  func(h *nsm.Client, m *abm.Client)
	key   string // of a stored record to damage
	value func([]byte) []byte
	arg   func([]byte) []byte
	says  []string
}

func at(i int, b byte) func([]byte) []byte {
	return func(p []byte) []byte {
		p = bytes.Clone(p)
		p[i] = b
		return p
	}
}

func short(p []byte) []byte { return p[:len(p)-1] }

func strangeCalls() []strange {
	put := func(h *nsm.Client, _ *abm.Client) { h.Put(ctx, 1, nsm.Create, 0, commit(7)) }
	many := func(h *nsm.Client, _ *abm.Client) {
		h.PutMany(ctx, 1, []nsm.Put{{Mode: nsm.Create, Object: commit(8)}, {Mode: nsm.Create, Object: commit(9)}})
	}
	deliver := func(kind nsm.MessageKind) func(h *nsm.Client, _ *abm.Client) {
		return func(h *nsm.Client, _ *abm.Client) { h.Deliver(ctx, 11, []nsm.Message{{Kind: kind, Namespace: 5}}) }
	}
	newer := "newer release"
	ns, object, osd := "nsm/N\x00\x00\x00\x00\x00\x00\x00\x01", "nsm/E\x00\x00\x00\x00\x00\x00\x00\x01sco-0000000000000001", "nsm/O\x00\x00\x00\x00\x00\x00\x00\x04"
	again := func(h *nsm.Client, _ *abm.Client) {
		h.PutMany(ctx, 1, []nsm.Put{{Mode: nsm.Replace, Object: commit(8)}, {Mode: nsm.Replace, Object: renamed(9, 1)}})
	}
	remove := func(_ *nsm.Client, m *abm.Client) { m.DeleteNamespace(ctx, "kept") }
	delivered := func(_ *nsm.Client, m *abm.Client) { m.MarkDelivered(ctx, 1, 1) }
	row := func(table string, n byte) string { return "abm/" + table + "\x00\x00\x00\x00\x00\x00\x00" + string(n) }
	return []strange{
		{name: "a later version of an argument", call: put, arg: at(0, 2), says: []string{"nsm.put, version 1: argument", newer, "version 2"}},
		{name: "argument cut off", call: put, arg: short, says: []string{"nsm.put, version 1: argument", "corrupt record"}},
		{name: "argument of version 0", call: put, arg: at(0, 0), says: []string{"version 0"}},
		{name: "a mode of a put", call: put, arg: at(9, 5), says: []string{newer, "put mode 5"}},
		{name: "a mode of one put of many", call: many, arg: at(13, 5), says: []string{newer, "put mode 5"}},
		{name: "a kind of message", call: deliver(9), says: []string{newer, "message kind 9"}},
		{name: "no message kind", call: deliver(0), says: []string{"message kind 0"}},
		{name: "a later version of a namespace", call: put, key: ns, value: at(0, 9), says: []string{"nsm/N", newer, "version 9"}},
		{name: "a state of a namespace", call: put, key: ns, value: at(1, 3), says: []string{"nsm/N", newer, "namespace state 3"}},
		{name: "namespace cut off", call: put, key: ns, value: short, says: []string{"nsm/N", "corrupt"}},
		{name: "a state of an OSD", call: put, key: osd, value: at(1, 4), says: []string{"nsm/O", newer, "OSD state 4"}},
		{name: "a later version of an object", call: again, key: object, value: at(0, 2), says: []string{"nsm/E", newer, "version 2"}},
		{name: "a later version of a host", call: deliver(1), key: "nsm/H", value: at(0, 2), says: []string{"nsm/H", newer}},
		{name: "ABM: a state of a namespace", call: remove, key: row("S", 1), value: at(1+8+4+4, 4), says: []string{"abm/S", newer, "namespace state 4"}},
		{name: "ABM: namespace in no state", call: remove, key: row("S", 1), value: at(1+8+4+4, 0), says: []string{"abm/S", "namespace state 0"}},
		{name: "ABM: a kind of a stored message", call: delivered, key: row("M", 1) + strings.Repeat("\x00", 7) + "\x01", value: at(1, 5), says: []string{"abm/M", newer, "message kind 5"}},
		{name: "ABM: a later version of a host", call: delivered, key: row("H", 1), value: at(0, 9), says: []string{"abm/H", newer, "version 9"}},
		{name: "ABM: a later version of the backend", call: func(_ *nsm.Client, m *abm.Client) { m.CreateNamespace(ctx, "x", "") }, key: "abm/B", value: at(0, 2), says: []string{"abm/B", newer}},
		{name: "ABM: a later version of an OSD", call: func(_ *nsm.Client, m *abm.Client) { m.ClaimOSD(ctx, [16]byte{3}) }, key: "abm/O\x03" + strings.Repeat("\x00", 15), value: at(0, 3), says: []string{"abm/O", newer, "version 3"}},
		{name: "ABM: a state of an OSD", call: func(_ *nsm.Client, m *abm.Client) { m.ClaimOSD(ctx, [16]byte{3}) }, key: "abm/O\x03" + strings.Repeat("\x00", 15), value: at(25, 5), says: []string{"abm/O", newer, "OSD state 5"}},
	}
}

// renamed is an object under another's name.
func renamed(n, name uint64) *nsm.Object {
	o := commit(n)
	o.Name = commit(name).Name
	return o
}

func managers() []userfn.Function { return append(nsm.Functions(), abm.Functions()...) }

// fillManagers gives both managers something to keep.
func fillManagers(t *testing.T, c *cluster.Client) {
	t.Helper()
	h, m := nsm.NewClient(c, c), abm.NewClient(c, c)
	link(t, h)
	_, err := h.Put(ctx, 1, nsm.Create, 0, commit(1))
	must(t, err)
	must(t, m.Init(ctx, [16]byte{1}))
	_, err = m.PutPreset(ctx, "p", 0, []byte("preset"))
	must(t, err)
	must(t, m.SetDefaultPreset(ctx, "p"))
	_, err = m.PutHost(ctx, "h", nil, false)
	must(t, err)
	_, err = m.CreateNamespace(ctx, "kept", "")
	must(t, err)
	must(t, m.RegisterOSD(ctx, abm.OSD{LongID: [16]byte{3}, Node: "n"}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// unchecked are functions whose calls nobody refuses before they are proposed: as
// those of another release, which can read what this one cannot.
func unchecked() []userfn.Function {
	list := managers()
	for i := range list {
		list[i].Check = nil
	}
	return list
}

// prepare fills a node and damages what the case wants damaged. It returns the
// call.
func (c *strange) prepare(t *testing.T, node *arakoon.Node) *state.Sequence {
	t.Helper()
	fillManagers(t, cluster.NewClient(node))
	if c.key != "" {
		v, err := node.Get(ctx, arakoon.Consistent, []byte(c.key))
		must(t, err)
		_, err = node.Do(ctx, new(state.Sequence).Set([]byte(c.key), c.value(v)))
		must(t, err)
	}
	r := &recorder{}
	c.call(nsm.NewClient(r, r), abm.NewClient(r, r))
	if c.arg != nil {
		r.arg = c.arg(r.arg)
	}
	return r.sequence()
}

func (c *strange) named(t *testing.T, err error) {
	t.Helper()
	for _, want := range c.says {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it does not say %q: %v", want, err)
		}
	}
}

func contents(t *testing.T, node *arakoon.Node) (s string) {
	t.Helper()
	must(t, node.Range(ctx, arakoon.Local, nil, nil, 0, func(k, v []byte) bool {
		s += string(k) + "=" + string(v) + "\n"
		return true
	}))
	return s
}

// A call that meets what this release cannot read, in its argument or stored, is
// not proposed: the member goes on, unchanged.
func TestProposersRefuse(t *testing.T) {
	cases := map[string]unknown.Case{}
	for _, c := range strangeCalls() {
		t.Run(c.name, func(t *testing.T) {
			node, err := openNode(crashdisk.New(), managers(), time.Now)
			must(t, err)
			defer node.Close()
			seq := c.prepare(t, node)
			before, applied := contents(t, node), node.Applied()
			_, err = node.Do(ctx, seq)
			var e *userfn.Error
			if !errors.As(err, &e) || e.Code != userfn.CodeNewer && e.Code != userfn.CodeCorrupt && e.Code != userfn.CodeInvalid {
				t.Fatalf("%v", err)
			}
			c.named(t, err)
			if e.Code == userfn.CodeNewer {
				cases[c.name] = unknown.Case{Says: c.says[len(c.says)-1], Read: func() error { return err }}
			}
			if node.Err() != nil || contents(t, node) != before || node.Applied() != applied {
				t.Errorf("the member is not as it was: %v", node.Err())
			}
			if _, err := node.Do(ctx, new(state.Sequence).Set([]byte("k"), nil)); err != nil {
				t.Error(err)
			}
		})
	}
	unknown.Walk(t, "Records of ABM and NSM", cases)
}

// Once such a call is in the log the member stops there, at each start, and applies
// nothing of it, until it runs a release that can read it.
func TestMembersStop(t *testing.T) {
	for _, c := range strangeCalls() {
		t.Run(c.name, func(t *testing.T) {
			fsys := crashdisk.New()
			node, err := openNode(fsys, unchecked(), time.Now)
			must(t, err)
			must(t, node.RaiseLevel(ctx, state.LevelNewest, false)) // as a call of a new kind would
			seq := c.prepare(t, node)
			before := node.Applied()
			if _, err = node.Do(ctx, seq); !errors.Is(err, arakoon.ErrFailed) || node.Applied() != before {
				t.Fatalf("%v; applied %d, was %d", err, node.Applied(), before)
			}
			c.named(t, err)
			_ = node.Close()
			for range 2 {
				node, err = openNode(fsys, managers(), time.Now)
				if err == nil {
					node.Close()
					t.Fatal("it went on after a restart")
				}
				c.named(t, err)
			}
			able := managers()
			for i := range able {
				able[i].Run = func(userfn.Tx, []byte) ([]byte, error) { return nil, nil }
			}
			node, err = openNode(fsys, able, time.Now)
			must(t, err)
			must(t, node.Close())
		})
	}
}
