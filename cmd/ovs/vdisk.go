package main

import "github.com/spf13/cobra"

func (a *app) vdisk() *cobra.Command {
	return group("vdisk", "make, look at, snapshot, clone and remove vDisks",
		a.vdiskCreate(), a.vdiskList(), a.vdiskInfo(), a.vdiskResize(), a.vdiskDelete(), a.vdiskRename(),
		a.vdiskSnapshot(), a.vdiskRollback(), a.vdiskClone(), a.vdiskSync(),
		a.vdiskAttach(), a.vdiskDetach(), a.vdiskAttached(),
		a.vdiskExport(), a.vdiskImport())
}
