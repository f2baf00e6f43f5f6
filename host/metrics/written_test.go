package metrics

import "testing"

func TestCauses(t *testing.T) {
	for _, c := range []struct{ dir, name, cause string }{
		{"/d", "/d/buffer/pool/1", causeBuffer},
		{"/d", "/d/map/000001.sst", causeMap},
		{"/d", "/d/asd/0/0000000000000001.seg", causeBackend},
		{"/d", "/d/backend/ns/sco", causeBackend},
		{"/d", "/mnt/disk1/0000000000000001.seg", causeBackend},
		{"d", "/mnt/disk1/0000000000000001.seg", causeBackend},
		{"d", "d/cache/1", causeCache},
		{"/d", "/d/arakoon/nsm-0/log/1.raft", causeRaft},
		{"/d", "/d/arakoon/nsm-0/state/000001.sst", causeState},
		{"/d", "/d/ovs.format", causeOther},
		{"/d", "/dd/ovs.format", causeBackend},
	} {
		if got := NewWritten(c.dir).cause(c.name); got != c.cause {
			t.Errorf("%s in %s is written for %s, not %s", c.name, c.dir, got, c.cause)
		}
	}
}
