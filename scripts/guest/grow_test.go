package guest_test

import (
	"fmt"
	"testing"
)

const (
	growFrom = 128 << 20
	growTo   = 384 << 20
)

// TestGrow: a vDisk grows under a running guest, over the mount at once.
func TestGrow(t *testing.T) {
	s := up(t)
	s.ovs("vdisk", "create", "grow", "--size", fmt.Sprint(growFrom))
	m := s.guest("grow", s.block("fuse", "grow"), "size=200")
	_, err := m.Await("grow ready", 0, bootMax)
	must(t, err)
	s.ovs("vdisk", "resize", "grow", "--size", fmt.Sprint(growTo))
	must(t, m.QMP("block_resize", map[string]any{"node-name": "disk", "size": growTo}))
	_, err = m.Await("grow ok", 0, workMax)
	must(t, err)
	must(t, m.Wait(stopMax))
}

// TestGrowNBD: an NBD client learns of a size when it connects. QEMU refuses the new
// size until then. A restart of ovs makes QEMU connect again, with the guest's next
// request, and then QEMU takes the new size. A guest that is started anew has it, too.
func TestGrowNBD(t *testing.T) {
	s := up(t)
	s.ovs("vdisk", "create", "grow", "--size", fmt.Sprint(growFrom))
	m := s.guest("grow", s.block("nbd", "grow"), "size=200")
	_, err := m.Await("grow ready", 0, bootMax)
	must(t, err)
	resize := func() error {
		return m.QMP("block_resize", map[string]any{"node-name": "disk", "size": growTo})
	}
	if err := resize(); err == nil {
		t.Error("QEMU takes a size that the vDisk does not have")
	}
	s.ovs("vdisk", "resize", "grow", "--size", fmt.Sprint(growTo))
	err = resize()
	t.Logf("before it has connected again: %v", err)
	if err == nil {
		t.Error("QEMU takes the new size over its old connection: docs/vms.md says that it does not")
	}
	must(t, s.Stop(stopMax))
	s.start()
	s.until("QEMU takes the new size", func() bool { return resize() == nil })
	_, err = m.Await("grow ok", 0, workMax)
	must(t, err)
	must(t, m.Wait(stopMax))

	m = s.guest("size", s.block("nbd", "grow"))
	_, err = m.Await(fmt.Sprint("size ", growTo), 0, bootMax)
	must(t, err)
	must(t, m.Wait(stopMax))
}
