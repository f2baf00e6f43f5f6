package counted

import "testing"

func TestOf(t *testing.T) {
	for n, want := range map[int]string{0: "0 disks are", 1: "1 disk is", 2: "2 disks are", 21: "21 disks are"} {
		if got := Of(n, "disk is", "disks are"); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
	if got := Of(uint64(1)<<63, "byte", "bytes"); got != "9223372036854775808 bytes" {
		t.Error(got)
	}
}
