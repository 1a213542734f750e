// Package gorm runs the stock ORM GORM on the stock Go client against a started server: OFFPRINT_URL
// is a database's address, over HTTP or as a WebSocket.
package gorm

import (
	"database/sql"
	"errors"
	"os"
	"strings"
	"testing"

	_ "github.com/tursodatabase/libsql-client-go/libsql"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
)

type Author struct {
	ID    uint
	Name  string `gorm:"uniqueIndex;not null"`
	Books []Book `gorm:"constraint:OnDelete:CASCADE"`
}

type Book struct {
	ID       uint
	AuthorID uint
	Title    string
	Price    float64
	Cover    []byte
}

func open(t *testing.T) *gorm.DB {
	t.Helper()
	conn, err := sql.Open("libsql", os.Getenv("OFFPRINT_URL"))
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	db, err := gorm.Open(sqlite.Dialector{Conn: conn}, &gorm.Config{
		Logger:         logger.Default.LogMode(logger.Silent),
		TranslateError: true,
	})
	check(t, err)
	check(t, db.Migrator().DropTable(&Book{}, &Author{}))
	check(t, db.AutoMigrate(&Author{}, &Book{}))
	return db
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func authors(t *testing.T, db *gorm.DB) string {
	t.Helper()
	var names []string
	check(t, db.Model(&Author{}).Order("name").Pluck("name", &names).Error)
	return strings.Join(names, " ")
}

func same[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%v, not %v", got, want)
	}
}

type Edition struct {
	ID   uint
	Name string
	Year int `gorm:"index"`
}

func TestMigrate(t *testing.T) {
	db := open(t)
	check(t, db.AutoMigrate(&Author{}, &Book{}))
	check(t, db.Migrator().DropTable(&Edition{}))
	check(t, db.Table("editions").AutoMigrate(&struct {
		ID   uint
		Name string
	}{}))
	check(t, db.AutoMigrate(&Edition{}))
	same(t, db.Migrator().HasColumn(&Edition{}, "year"), true)
	same(t, db.Migrator().HasIndex(&Edition{}, "idx_editions_year"), true)
	check(t, db.Migrator().DropColumn(&Edition{}, "name"))
	same(t, db.Migrator().HasColumn(&Edition{}, "name"), false)
}

func TestCreateReadUpdateDelete(t *testing.T) {
	db := open(t)
	ada := Author{Name: "Ada", Books: []Book{
		{Title: "One", Price: 1.5, Cover: []byte{0, 1, 255}}, {Title: "Two"}}}
	check(t, db.Create(&ada).Error)
	same(t, ada.ID > 0 && ada.Books[1].ID > 0, true)
	var found Author
	check(t, db.Preload("Books", func(tx *gorm.DB) *gorm.DB { return tx.Order("title") }).
		First(&found, "name = ?", "Ada").Error)
	same(t, len(found.Books), 2)
	same(t, string(found.Books[0].Cover), "\x00\x01\xff")
	same(t, found.Books[0].Price, 1.5)
	result := db.Model(&Book{}).Where("price < ?", 1).Update("price", gorm.Expr("price + ?", 7))
	check(t, result.Error)
	same(t, result.RowsAffected, 1)
	check(t, db.Clauses(clause.OnConflict{
		Columns: []clause.Column{{Name: "name"}}, DoNothing: true}).Create(&Author{Name: "Ada"}).Error)
	check(t, db.CreateInBatches([]Author{{Name: "B"}, {Name: "C"}, {Name: "D"}}, 2).Error)
	same(t, authors(t, db), "Ada B C D")
	check(t, db.Delete(&found).Error)
	var books int64
	check(t, db.Model(&Book{}).Count(&books).Error)
	same(t, books, 0)
	err := db.First(&Author{}, "name = ?", "nobody").Error
	same(t, errors.Is(err, gorm.ErrRecordNotFound), true)
}

func TestUniqueConstraint(t *testing.T) {
	db := open(t)
	check(t, db.Create(&Author{Name: "Ada"}).Error)
	err := db.Create(&Author{Name: "Ada"}).Error
	if err == nil || !strings.Contains(err.Error(), "UNIQUE constraint failed: authors.name") {
		t.Fatalf("not refused as it should be: %v", err)
	}
	same(t, authors(t, db), "Ada")
}

func TestTransaction(t *testing.T) {
	db := open(t)
	check(t, db.Transaction(func(tx *gorm.DB) error {
		check(t, tx.Create(&Author{Name: "Ada"}).Error)
		same(t, authors(t, tx), "Ada")
		return nil
	}))
	enough := errors.New("enough")
	err := db.Transaction(func(tx *gorm.DB) error {
		check(t, tx.Create(&Author{Name: "Bob"}).Error)
		return enough
	})
	same(t, errors.Is(err, enough), true)
	same(t, authors(t, db), "Ada")
}

func TestSavepoints(t *testing.T) {
	db := open(t)
	check(t, db.Transaction(func(tx *gorm.DB) error {
		check(t, tx.Create(&Author{Name: "Ada"}).Error)
		check(t, tx.SavePoint("before").Error)
		check(t, tx.Create(&Author{Name: "Bob"}).Error)
		check(t, tx.RollbackTo("before").Error)
		inner := tx.Transaction(func(nested *gorm.DB) error {
			check(t, nested.Create(&Author{Name: "Cleo"}).Error)
			return errors.New("only this")
		})
		same(t, inner != nil, true)
		return tx.Create(&Author{Name: "Dora"}).Error
	}))
	same(t, authors(t, db), "Ada Dora")
}
