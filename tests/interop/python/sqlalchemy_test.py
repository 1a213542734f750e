"""SQLAlchemy on the stock dialect sqlalchemy-libsql: OFFPRINT_URL is a database's address."""
import os
import unittest
from datetime import datetime

from sqlalchemy import (Column, DateTime, Float, ForeignKey, Integer, MetaData, String, Table,
                        create_engine, func, insert, inspect, select, update)
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, relationship, selectinload

URL = os.environ["OFFPRINT_URL"].replace("http://", "sqlite+libsql://")


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id = mapped_column(Integer, primary_key=True)
    name = mapped_column(String, unique=True, nullable=False)
    joined = mapped_column(DateTime)
    books = relationship("Book", back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "books"
    id = mapped_column(Integer, primary_key=True)
    title = mapped_column(String, nullable=False)
    price = mapped_column(Float)
    author_id = mapped_column(ForeignKey("authors.id"))
    author = relationship("Author", back_populates="books")


class SqlalchemyTest(unittest.TestCase):
    def setUp(self):
        self.engine = create_engine(URL)
        Base.metadata.drop_all(self.engine)
        Base.metadata.create_all(self.engine)

    def tearDown(self):
        self.engine.dispose()

    def test_schema_is_reflected(self):
        columns = {column["name"]: column for column in inspect(self.engine).get_columns("authors")}
        self.assertEqual(list(columns), ["id", "name", "joined"])
        self.assertFalse(columns["name"]["nullable"])
        key = inspect(self.engine).get_foreign_keys("books")[0]
        self.assertEqual(key["referred_table"], "authors")

    def test_core(self):
        things = Table("things", MetaData(), Column("id", Integer, primary_key=True),
                       Column("name", String))
        things.drop(self.engine, checkfirst=True)
        things.create(self.engine)
        with self.engine.begin() as connection:
            result = connection.execute(insert(things).values(name="a"))
            self.assertEqual(result.inserted_primary_key[0], 1)
            connection.execute(insert(things), [{"name": f"n{i}"} for i in range(50)])
            connection.execute(update(things).where(things.c.id == 1).values(name="b"))
        with self.engine.connect() as connection:
            self.assertEqual(connection.scalar(select(func.count()).select_from(things)), 51)
            self.assertEqual(connection.scalar(select(things.c.name).where(things.c.id == 1)), "b")

    def test_orm_round_trip(self):
        joined = datetime(2024, 2, 29, 12, 0, 0)
        with Session(self.engine) as session:
            session.add(Author(name="Ada", joined=joined,
                               books=[Book(title="One", price=1.5), Book(title="Two")]))
            session.commit()
        with Session(self.engine) as session:
            ada = session.scalars(select(Author).options(selectinload(Author.books))).one()
            self.assertEqual((ada.name, ada.joined), ("Ada", joined))
            self.assertEqual([(book.title, book.price) for book in ada.books],
                             [("One", 1.5), ("Two", None)])
            ada.books[0].title = "Uno"
            session.delete(ada.books[1])
            session.commit()
        with Session(self.engine) as session:
            self.assertEqual(session.scalars(select(Book.title)).all(), ["Uno"])

    def test_rollback(self):
        with Session(self.engine) as session:
            session.add(Author(name="Ada"))
            session.flush()
            session.rollback()
            self.assertEqual(session.scalar(select(func.count()).select_from(Author)), 0)

    def test_unique_constraint(self):
        with Session(self.engine) as session:
            session.add(Author(name="Ada"))
            session.commit()
            session.add(Author(name="Ada"))
            # The client raises a ValueError, which SQLAlchemy passes on as it is.
            with self.assertRaisesRegex(Exception, "UNIQUE constraint failed: authors.name"):
                session.commit()


if __name__ == "__main__":
    unittest.main()
