package bell

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// WriteOneRoster writes the roster as a OneRoster 1.1 bulk CSV directory: the
// files a school's student information system hands out. The directory is made;
// files of the same name are replaced. day lies in the school year written.
// Memory does not grow with the number of students.
func (r *Roster) WriteOneRoster(dir string, day time.Time) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing the roster: %w", err)
	}
	year := strconv.Itoa(day.Year())
	for _, f := range []struct {
		name string
		rows func(put func(...string))
	}{
		{"manifest.csv", manifest},
		{"academicSessions.csv", func(put func(...string)) {
			put("sourcedId", "status", "dateLastModified", "title", "type", "startDate", "endDate", "parentSourcedId", "schoolYear")
			put("year-"+year, "", "", "School year "+year, "schoolYear", year+"-01-01", year+"-12-31", "", year)
		}},
		{"orgs.csv", r.orgs},
		{"courses.csv", func(put func(...string)) { r.courses(put, year) }},
		{"classes.csv", func(put func(...string)) { r.classRows(put, year) }},
		{"users.csv", r.users},
		{"enrollments.csv", r.enrollments},
	} {
		if err := writeCSV(filepath.Join(dir, f.name), f.rows); err != nil {
			return fmt.Errorf("writing the roster: %w", err)
		}
	}
	return nil
}

func writeCSV(path string, rows func(put func(...string))) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	buffered := bufio.NewWriterSize(f, 64<<10)
	w := csv.NewWriter(buffered)
	rows(func(fields ...string) {
		if err == nil {
			err = w.Write(fields)
		}
	})
	if err != nil {
		return err
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return err
	}
	return buffered.Flush()
}

func manifest(put func(...string)) {
	put("propertyName", "value")
	put("manifest.version", "1.0")
	put("oneroster.version", "1.1")
	for _, f := range []string{"academicSessions", "classes", "courses", "enrollments", "orgs", "users"} {
		put("file."+f, "bulk")
	}
	for _, f := range []string{"categories", "classResources", "courseResources", "demographics", "lineItems", "resources", "results"} {
		put("file."+f, "absent")
	}
	put("source.systemName", "firstbell demo")
	put("source.systemCode", "firstbell-demo")
}

func (r *Roster) orgs(put func(...string)) {
	put("sourcedId", "status", "dateLastModified", "name", "type", "identifier", "parentSourcedId")
	for s := range r.schools {
		id := r.SchoolID(s)
		put(id, "", "", "School "+id[1:], "school", id, "")
	}
}

func (r *Roster) courses(put func(...string), year string) {
	put("sourcedId", "status", "dateLastModified", "schoolYearSourcedId", "title", "courseCode", "grades", "orgSourcedId", "subjects", "subjectCodes")
	for s := range r.schools {
		for g := 1; g <= grades; g++ {
			put(courseID(r.SchoolID(s), g), "", "", "year-"+year, fmt.Sprintf("Morning lesson, grade %d", g), "", gradeCode(g), r.SchoolID(s), "", "")
		}
	}
}

func (r *Roster) classRows(put func(...string), year string) {
	put("sourcedId", "status", "dateLastModified", "title", "grades", "courseSourcedId", "classCode", "classType", "location", "schoolSourcedId", "termSourcedIds", "subjects", "subjectCodes", "periods")
	for s := range r.schools {
		school := r.SchoolID(s)
		for c := range r.classes(s) {
			g, id := r.class(s, c)
			put(id, "", "", "Class "+id[len(school)+1:], gradeCode(g), courseID(school, g), "", "homeroom", "", school, "year-"+year, "", "", "")
		}
	}
}

func (r *Roster) users(put func(...string)) {
	put("sourcedId", "status", "dateLastModified", "enabledUser", "orgSourcedIds", "role", "username", "userIds", "givenName", "familyName", "middleName", "identifier", "email", "sms", "phone", "agentSourcedIds", "grades", "password")
	for i := range r.students {
		st := r.Student(i)
		put(st.ID, "", "", "true", r.SchoolID(st.School), "student", st.ID, "", st.Given, st.Family, "", st.ID, "", "", "", "", gradeCode(st.Grade), "")
	}
}

func (r *Roster) enrollments(put func(...string)) {
	put("sourcedId", "status", "dateLastModified", "classSourcedId", "schoolSourcedId", "userSourcedId", "role", "primary", "beginDate", "endDate")
	for i := range r.students {
		st := r.Student(i)
		put("e-"+st.ID, "", "", st.ClassID, r.SchoolID(st.School), st.ID, "student", "false", "", "")
	}
}

func courseID(school string, grade int) string { return fmt.Sprintf("%s-morning-%d", school, grade) }

// gradeCode is the grade in the CEDS code set that OneRoster names: the three
// years of middle school are 07 to 09.
func gradeCode(grade int) string { return fmt.Sprintf("%02d", 6+grade) }
