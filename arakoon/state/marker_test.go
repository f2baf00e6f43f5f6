package state

import (
	"errors"
	"path"
	"strings"
	"testing"

	"openvstorage/internal/disk/crashdisk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// A state whose marker is lost is not made anew: its tables would be removed.
func TestLostMarker(t *testing.T) {
	d := crashdisk.New()
	o := Options{FS: d, Dir: "/state", Cluster: testCluster, Member: 3, Begin: Position{Index: 1, Term: 1, Conf: &pb.ConfState{Voters: []uint64{3}}}}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, Command{Body: body(t, new(Sequence).Set([]byte("k"), []byte("v")))})
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, _ := d.ReadDir("/state")
	lost := 0
	for _, name := range names {
		if strings.HasPrefix(name, "marker.manifest.") {
			lost++
			if err := d.Remove(path.Join("/state", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	before, _ := d.ReadDir("/state")
	if _, err := Open(o); lost != 1 || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "/state") {
		t.Errorf("%d markers lost: %v", lost, err)
	}
	if after, _ := d.ReadDir("/state"); len(after) < len(before) {
		t.Errorf("of %v only %v is left", before, after)
	}
}
