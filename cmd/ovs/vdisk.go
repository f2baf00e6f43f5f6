package main

import "github.com/spf13/cobra"

// vdiskCommands are those of `ovs vdisk`, a file for each.
type vdiskCommands struct{ *app }

func (cmds vdiskCommands) group() *cobra.Command {
	return group("vdisk", "make, look at, snapshot, clone and remove vDisks",
		cmds.create(), cmds.list(), cmds.info(), cmds.resize(), cmds.delete(), cmds.rename(),
		snapshotCommands{cmds.app}.group(), cmds.rollback(), cmds.clone(), cmds.sync(),
		cmds.attach(), cmds.detach(), cmds.attached(),
		cmds.exportImage(), cmds.importImage())
}
