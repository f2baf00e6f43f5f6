package main

import "github.com/spf13/cobra"

// vdiskCommands are the commands of `ovs vdisk`, most of them in a file of their own.
type vdiskCommands struct{ *app }

func (cmds vdiskCommands) group() *cobra.Command {
	return group("vdisk", "make, look at, snapshot, clone and remove vDisks",
		cmds.create(), cmds.list(), cmds.info(), cmds.resize(), cmds.delete(), cmds.rename(),
		snapshotCommands{cmds.app}.group(), cmds.rollback(), cmds.clone(), cmds.sync(),
		cmds.attach(), cmds.detach(), cmds.attached(),
		cmds.exportImage(), cmds.importImage())
}
