package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// serving reads what the file names and looks whether what is written to can be:
// the part of checking that depends on the machine.
func (v *validator) serving() {
	v.readSchools()
	if o := &v.c.Ops; o.TokenFile != "" {
		o.Token = v.secretFile("ops.token_file", o.TokenFile)
		v.tokenLength("ops.token_file", o.Token)
	}
	v.identitySecrets()
	v.readCertificates()
	v.readOriginFiles()
	v.writableDir("cache.disk.path", v.c.Cache.Disk.Path)
	a := v.c.Attendance
	if a == nil {
		return
	}
	v.writableDir("attendance.journal", a.Journal)
	v.writableDir("attendance.journal_spare", a.JournalSpare)
	if v.given("attendance.signing.keys") {
		v.writableDir("attendance.signing.keys", a.Signing.Keys)
	}
	if path, file := strings.CutPrefix(a.Store, "sqlite:"); file {
		v.writableFile("attendance.store", path)
	}
	v.storePassword()
	if a.Roster != "" {
		if info, err := os.Stat(a.Roster); err != nil {
			v.wrong("attendance.roster", "create it with orgs.csv, users.csv, classes.csv and enrollments.csv", "%s: %s", a.Roster, reasonOf(err))
		} else if !info.IsDir() {
			v.wrong("attendance.roster", "name the directory that holds the OneRoster CSV files", "%s is not a directory", a.Roster)
		}
	}
	for i := range a.Sinks {
		v.credential(fmt.Sprintf("attendance.sinks[%d]", i), &a.Sinks[i])
	}
}

// storePassword reads what the store cannot be opened without.
func (v *validator) storePassword() {
	if a := v.c.Attendance; a != nil && a.PasswordFile != "" {
		a.StorePassword = v.secretFile("attendance.store_password_file", a.PasswordFile)
	}
}

// reading reads what those need who only read what firstbell wrote.
func (v *validator) reading() {
	v.readSchools()
	v.storePassword()
}

// writableDir wants a directory that can be written to, or a place where one
// can be made.
func (v *validator) writableDir(path, dir string) {
	if dir == "" {
		return
	}
	info, err := os.Stat(dir)
	switch {
	case os.IsNotExist(err):
		v.makeable(path, dir)
	case err != nil:
		v.wrong(path, "make it reachable for the user firstbell runs as", "%s: %s", dir, reasonOf(err))
	case !info.IsDir():
		v.wrong(path, "name a directory", "%s is a file", dir)
	case !writable(dir):
		v.wrong(path, "give it to the user firstbell runs as: chown -R firstbell "+dir, "%s cannot be written to", dir)
	}
}

// makeable wants the directory above name to be there and writable.
func (v *validator) makeable(path, name string) {
	above := filepath.Dir(name)
	if info, err := os.Stat(above); err != nil || !info.IsDir() {
		v.wrong(path, "create it: mkdir -p "+above, "the directory %s is not there", above)
	} else if !writable(above) {
		v.wrong(path, "give it to the user firstbell runs as: chown firstbell "+above, "nothing can be created in %s", above)
	}
}

func (v *validator) writableFile(path, name string) {
	info, err := os.Stat(name)
	switch {
	case os.IsNotExist(err):
		v.makeable(path, name)
	case err != nil:
		v.wrong(path, "make it reachable for the user firstbell runs as", "%s: %s", name, reasonOf(err))
	case info.IsDir():
		v.wrong(path, "name a file in it", "%s is a directory", name)
	case !writable(name):
		v.wrong(path, "give it to the user firstbell runs as: chown firstbell "+name, "%s cannot be written to", name)
	}
}

// writable asks the system whether this process may read and write name.
func writable(name string) bool {
	const read, write = 4, 2
	return syscall.Access(name, read|write) == nil
}
