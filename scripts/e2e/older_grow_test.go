package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"openvstorage/internal/datadir"
	"openvstorage/scripts/group"
	"openvstorage/scripts/server"

	"github.com/google/uuid"
)

// A group that the release before has made, which could have one member only, is opened by
// this release and grows to three, while it is used. All three have what was in it.
func TestOlderGroupGrowsToThree(t *testing.T) {
	long(t)
	if *standIn != "" {
		t.Skip("needs the management of ovs")
	}
	dir := t.TempDir()
	before := filepath.Join(dir, "before")
	s := &system{t: t, Ovs: server.Ovs{Bin: olderOvs(t), Data: before}}
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	s.command = s.Up()
	s.start()
	for i := range 3 {
		s.create(fmt.Sprintf("disk-%d", i), 16*mib)
	}
	must(t, s.Stop(stopMax))

	b, err := os.ReadFile(filepath.Join(before, datadir.FormatFile))
	must(t, err)
	record, _, err := datadir.Decode(b)
	must(t, err)
	program, err := group.Build(ctx, dir)
	must(t, err)
	g := group.New(program, dir, "-generation", fmt.Sprint(record.Generation))
	t.Cleanup(g.Close)
	g.Cluster = uuid.NewSHA1(record.ID, []byte("registry"))
	first := true
	for id := range uint64(3) {
		address, err := group.Free()
		must(t, err)
		p := group.Place{ID: id + 1, Dir: filepath.Join(dir, fmt.Sprint(id+1)), Address: address}
		if first {
			p.Dir = filepath.Join(before, "arakoon", "registry")
		}
		g.Add(p, !first)
		first = false
	}
	one := g.Members()[0]
	must(t, one.Start())
	_, err = g.Leader(ctx)
	must(t, err)
	was := keys(ctx, t, one)
	for i := range 3 {
		name := []byte(fmt.Sprintf("disk-%d", i))
		found := false
		for key, value := range was {
			found = found || bytes.Contains(value, name) || bytes.Contains([]byte(key), name)
		}
		if !found {
			t.Errorf("%s is not in the group: %d keys", name, len(was))
		}
	}
	must(t, one.Process().Stop(stopMax))

	must(t, g.Found(ctx))
	for _, m := range g.Members() {
		eventually(t, time.Minute, "a member has all keys", func() bool {
			return maps.EqualFunc(keys(ctx, t, m), was, bytes.Equal)
		})
	}
	// And it is a group of three: it goes on without the one that was there before.
	one.Process().Kill()
	l, err := g.Leader(ctx)
	must(t, err)
	if l == one {
		t.Error("the member that was killed leads")
	}
}

func keys(ctx context.Context, t *testing.T, m *group.Member) (all map[string][]byte) {
	t.Helper()
	must(t, m.Call(ctx, "/keys", nil, &all))
	return all
}
